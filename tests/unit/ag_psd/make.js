// Writes the two documents beside it, as ag-psd 31.0.2 does: npm install ag-psd && node make.js
const fs = require('fs'), { writePsdBuffer } = require('ag-psd')
const fill = (width, height, rgba) => ({ width, height, data: Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => rgba[i % 4]) })
const layer = (name, left, top, width, height, rgba, more) => ({ name, left, top, imageData: fill(width, height, rgba), ...more })
const ramp = (width, height) => ({ width, height, data: Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => i % 4 == 3 ? 255 : 255 * Math.floor(i / 4 % width) / (width - 1)) })
const children = [
  layer('ground', 0, 0, 16, 12, [40, 80, 160, 255]),
  { name: 'folder', opacity: 0.5, blendMode: 'multiply', opened: true, children: [
    layer('masked', 2, 2, 8, 8, [255, 0, 0, 255], { mask: { left: 4, top: 2, right: 8, bottom: 10, defaultColor: 0, imageData: ramp(4, 8), userMaskDensity: 0.5 } }),
    layer('hidden 狐', -3, 5, 6, 4, [0, 255, 0, 128], { hidden: true, blendMode: 'screen' }) ] },
  layer('base', 4, 4, 6, 6, [255, 255, 255, 255]),
  layer('clipped', 0, 0, 8, 8, [10, 20, 30, 255], { clipping: true, opacity: 0.8, fillOpacity: 0.5 }),
  layer('shadowed', 12, 8, 3, 3, [200, 100, 50, 255], { blendMode: 'linear dodge', effects: { dropShadow: [{ enabled: true, present: true, showInDialog: true, size: { units: 'Pixels', value: 3 }, distance: { units: 'Pixels', value: 2 }, angle: 120, color: { r: 0, g: 0, b: 0 }, opacity: 0.7, blendMode: 'multiply' }] } }),
  { name: 'inverted', hidden: true, adjustment: { type: 'invert' } },
]
const psd = { width: 16, height: 12, imageData: fill(16, 12, [40, 80, 160, 255]), children }
fs.writeFileSync('ag-psd.psd', writePsdBuffer(psd, { generateThumbnail: false }))
fs.writeFileSync('ag-psd.psb', writePsdBuffer(psd, { generateThumbnail: false, psb: true, compress: true }))
