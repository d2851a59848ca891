const SVG = 'http://www.w3.org/2000/svg'
const PATHS = {
  send: ['M4.5 12 20 4.5 15.5 20l-3.8-6.2L4.5 12Z', 'm11.7 13.8 8.3-9.3'],
  back: ['M15 5 8 12l7 7'],
  search: ['M11 4.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13Z', 'm16 16 4 4'],
  clock: ['M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16Z', 'M12 7.5V12l3 2'],
  check: ['m5 12.5 4.5 4.5L19 7'],
  alert: ['M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16Z', 'M12 8v4.5', 'M12 15.9v.2'],
  retry: ['M19 12a7 7 0 1 1-2.2-5.1L19 9', 'M19 4.5V9h-4.5'],
  undo: ['M9 14 4.5 9.5 9 5', 'M4.5 9.5H14a5.25 5.25 0 0 1 0 10.5h-3'],
  down: ['m6 9.5 6 6 6-6'],
  out: ['M14 5h4a1.5 1.5 0 0 1 1.5 1.5v11A1.5 1.5 0 0 1 18 19h-4', 'M4.5 12H15', 'm11.5 8.5 3.5 3.5-3.5 3.5'],
  hash: ['M9.5 4.5 8 19.5', 'm16 4.5-1.5 15', 'M4.5 9.5h15', 'M4 14.5h15'],
  chats: ['M5 5.5h14A1.5 1.5 0 0 1 20.5 7v8.5A1.5 1.5 0 0 1 19 17h-7l-4.5 3.5V17H5a1.5 1.5 0 0 1-1.5-1.5V7A1.5 1.5 0 0 1 5 5.5Z'],
  lock: ['M7 11V8.5a5 5 0 0 1 10 0V11', 'M6.5 11h11a1 1 0 0 1 1 1v6.5a1 1 0 0 1-1 1h-11a1 1 0 0 1-1-1V12a1 1 0 0 1 1-1Z'],
} as const
export type IconName = keyof typeof PATHS

export function icon(name: IconName): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg')
  svg.setAttribute('viewBox', '0 0 24 24')
  svg.setAttribute('class', `icon icon-${name}`)
  svg.setAttribute('aria-hidden', 'true')
  for (const d of PATHS[name]) {
    const path = document.createElementNS(SVG, 'path')
    path.setAttribute('d', d)
    svg.append(path)
  }
  return svg
}
