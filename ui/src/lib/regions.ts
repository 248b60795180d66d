// The regions of the window, which F6 goes through as in other desktop programs: the list of sessions, the header of one,
// its files, its editor and its terminals. Each is marked by `data-region`, whose value is the selector of what in it gets
// the focus at first.

const TABBABLE = "button, a[href], input, textarea, select, [contenteditable=true], [tabindex='0']";

/** What had the focus last in each region. */
const last = new WeakMap<Element, HTMLElement>();

/** Takes note of what has the focus. */
export function noteFocus(target: EventTarget | null): void {
  if (!(target instanceof HTMLElement)) return;
  const region = target.closest("[data-region]");
  if (region) last.set(region, target);
}

/** Gives the focus to the next region that takes it, or with `-1` to the one before; returns whether one did. */
export function focusNextRegion(by: 1 | -1): boolean {
  const regions = [...document.querySelectorAll<HTMLElement>("[data-region]")].filter(isShown);
  const at = regions.findIndex((region) => region.contains(document.activeElement));
  for (let step = 1; step <= regions.length; step += 1) {
    const place = at < 0 && by < 0 ? -step : at + by * step;
    const region = regions.at(((place % regions.length) + regions.length) % regions.length);
    if (region && takesFocus(region)) return true;
  }
  return false;
}

function takesFocus(region: HTMLElement): boolean {
  const first = region.dataset.region;
  const candidates = [last.get(region), ...(first ? region.querySelectorAll<HTMLElement>(first) : []), ...region.querySelectorAll<HTMLElement>(TABBABLE)];
  for (const candidate of candidates) {
    if (!candidate || !region.contains(candidate) || !isShown(candidate)) continue;
    candidate.focus();
    if (document.activeElement === candidate) return true;
  }
  return false;
}

function isShown(element: Element): boolean {
  return element.getClientRects().length > 0;
}
