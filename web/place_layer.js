// Place Layer of a workflow that was saved before `moves` was there goes by the whole picture, as it did then. New nodes go by the object.
import { app } from "../../scripts/app.js"

app.registerExtension({
  name: "Diaphane.PlaceLayer",
  beforeRegisterNodeDef(nodeType, { name }) {
    if (name !== "DiaphanePlaceLayer") return
    const { onConfigure } = nodeType.prototype
    nodeType.prototype.onConfigure = function (saved) {
      onConfigure?.call(this, saved)
      const index = this.widgets.findIndex((widget) => widget.name === "moves")
      if (saved.widgets_values?.length <= index) this.widgets[index].value = "picture"
    }
  },
})
