/** TeX as MathML, by Temml; what it cannot read stays TeX. */

import temml from 'temml';

export function maths(tex: string, display: boolean): string {
  const html = temml.renderToString(tex, { displayMode: display, throwOnError: false, trust: false, maxSize: [20, 500] });
  return html.replace(/ style="[^"]*"/g, '');
}
