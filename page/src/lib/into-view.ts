/** Scroll an element that just appeared into view: `<form {@attach intoView}>`. */
export function intoView(element: HTMLElement): void {
  element.scrollIntoView({ block: 'nearest' });
}
