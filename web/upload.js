// Puts a layered file from the artist's disk into ComfyUI's input folder: a button of Load Layers, or a file dropped on the node.
// ComfyUI's own upload takes only what browsers show as a picture.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const NODE = "DiaphaneLoadLayers"
const ENDINGS = [".psd", ".psb", ".ora"]

async function upload(node, file) {
  const body = new FormData()
  body.append("image", file) // so the server calls any file
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!answer.ok) {
    const detail = `${file.name}: ${answer.status} ${answer.statusText}`
    app.extensionManager.toast.add({ severity: "error", summary: "Load Layers", detail, life: 10000 })
    return
  }
  const { name } = await answer.json()
  const choice = node.widgets.find((widget) => widget.name === "file")
  if (!choice.options.values.includes(name)) choice.options.values.push(name)
  choice.value = name
  choice.callback?.(name)
  node.setDirtyCanvas(true, true)
}

function choose(node) {
  const input = document.createElement("input")
  input.type = "file"
  input.accept = ENDINGS.join(",")
  input.onchange = () => input.files.length && upload(node, input.files[0])
  input.click()
}

app.registerExtension({
  name: "Diaphane.Upload",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    const button = node.addWidget("button", "upload", null, () => choose(node), { serialize: false })
    button.label = `↑ ${ENDINGS.join(" ")}`
    button.serialize = false
    node.onDragOver = ({ dataTransfer }) => [...(dataTransfer?.items ?? [])].some(({ kind }) => kind === "file")
    node.onDragDrop = ({ dataTransfer }) => {
      const file = [...dataTransfer.files].find(({ name }) => ENDINGS.some((ending) => name.toLowerCase().endsWith(ending)))
      if (file) upload(node, file)
      return Boolean(file)
    }
  },
})
