// Shows what a node has to say after a run (`notes` of lib_layerdiffuse/comfyui/messages.py) under the node, until a later run says otherwise.
import { app } from "../../scripts/app.js"

const NAME = "$$diaphane-notes"
const OURS = /^(Diaphane|LayeredDiffusion)/

function addWidget(node) {
  const element = document.createElement("div")
  const text = element.appendChild(document.createElement("div"))
  // The lines are the texts; only a word that is wider than the node, as a file's path may be, is broken.
  text.style.cssText = "font-size: 12px; line-height: 1.4; white-space: pre-line; overflow-wrap: anywhere; user-select: text"
  text.style.color = "var(--input-text)"
  // Vue nodes do so themselves.
  element.addEventListener("wheel", (event) => LiteGraph.vueNodesMode || app.canvas.processMouseWheel(event))
  let height = 0
  const widget = node.addDOMWidget(NAME, "diaphane-notes", element, { serialize: false, hideInPanel: true, hideOnZoom: false })
  // As high as the text, whatever else the node has room for. A text that is out of sight has no width.
  widget.computeLayoutSize = undefined
  widget.computeSize = () => {
    if (text.offsetWidth) height = text.offsetHeight
    return [0, height + 2 * widget.margin]
  }
  widget.serialize = false
  new ResizeObserver(() => node.setDirtyCanvas(true, true)).observe(text)
  return widget
}

function show(node, texts) {
  const shown = node.widgets?.find((widget) => widget.name === NAME)
  if (texts?.length) (shown ?? addWidget(node)).element.firstChild.textContent = texts.join("\n")
  else if (shown) node.removeWidget(shown)
}

// By a locator (subgraph:node) or by the ids of the nodes on the way to it (node:node): frontends have used both.
function find(id) {
  const way = id.split(":")
  const last = way.pop()
  const graph = way.reduce((graph, step) => graph?.subgraphs.get(step) ?? graph?.getNodeById(step)?.subgraph, app.rootGraph)
  return graph?.getNodeById(last)
}

// Nodes are made anew when a workflow's tab is opened again or a change is undone; the outputs are still there.
function restore() {
  for (const [id, output] of Object.entries(app.nodeOutputs)) {
    const node = find(id)
    if (node && OURS.test(node.comfyClass)) show(node, output?.text)
  }
}

app.registerExtension({
  name: "Diaphane.Notes",
  beforeRegisterNodeDef(nodeType, { name }) {
    if (!OURS.test(name)) return
    const { onExecuted } = nodeType.prototype
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output)
      show(this, output?.text)
    }
  },
  // Not at once: a node that takes the place of one with the same id and the same widgets is not drawn anew by Vue.
  afterConfigureGraph: () => setTimeout(restore),
  onNodeOutputsUpdated: restore,
})
