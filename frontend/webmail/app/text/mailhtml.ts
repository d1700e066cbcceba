// HTML of a message, taken apart and built anew in its frame's document, element by element from a list of what is allowed.
//
// It is the second wall: the first is the frame, whose policy lets nothing run and nothing be fetched (docs/adr/131-html-mail-in-a-frame.md).
// No text of a message becomes markup of the page: it is parsed into an inert document and copied by names that stand here.

/** Everything that makes text what it looks like, and nothing that acts. What is not named is left out, its children stay. */
const ELEMENTS = new Set(
  ("a abbr acronym address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd del details dfn dir div dl dt em " +
    "figcaption figure font footer h1 h2 h3 h4 h5 h6 header hgroup hr i img ins kbd li main mark nav ol p pre q rp rt ruby s samp section small span " +
    "strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var wbr").split(" "),
);
/** Left out with everything within. */
const DROPPED = new Set(
  ("script noscript template iframe frame frameset noframes object embed applet audio video source track canvas svg math form input button select textarea " +
    "option optgroup datalist output progress meter dialog portal base link meta title head style slot xml plaintext xmp listing noembed").split(" "),
);
/** On whatever element. */
const ATTRIBUTES = new Set(
  ("abbr align alt axis bgcolor border cellpadding cellspacing char charoff class clear color cols colspan compact datetime dir face frame headers height " +
    "hspace id lang noshade nowrap reversed role rowspan rules scope size span start style summary title type valign value vspace width").split(" "),
);
const IMAGE_DATA = /^data:image\/(?:png|jpe?g|gif|webp|avif|bmp|x-icon|vnd\.microsoft\.icon);base64,[a-z0-9+/=\s]+$/i;
const HREF = /^(?:https?:|mailto:|tel:)/i;
/** An image of so few pixels on a side is there to be fetched, not to be seen. */
const TRACKER_PIXELS_MAX = 2;
/** Deeper than anybody writes: what is below is left out. */
const DEPTH_MAX = 300;

export interface Built {
  /** Images that would have to be fetched from somewhere. */
  remote: number;
  /** Those of them that nobody would see, by the host that they tell. */
  trackers: string[];
  /** `cid:` images that are to be filled in: the element and the Content-ID. */
  inline: { image: HTMLImageElement; contentId: string }[];
  /** Whether the message says of which colour it is: then it stands on the paper that it was written for. */
  coloured: boolean;
}

export interface Options {
  /** Whether images are fetched from where the message says. */
  images: boolean;
  /** What the button that shows quotations says. */
  unfold: string;
}

/** Parses without running or fetching anything: documents of DOMParser have no browsing context. */
export type Parse = (html: string) => Document;

export function build(target: Document, html: string, parse: Parse, options: Options): Built {
  const source = parse(html);
  const built: Built = { remote: 0, trackers: [], inline: [], coloured: false };
  for (const style of source.querySelectorAll("style")) {
    const sheet = target.createElement("style");
    const text = safeCss(style.textContent ?? "", options.images);
    if (hasColour(text)) built.coloured = true;
    sheet.textContent = text;
    target.head.append(sheet);
  }
  const body = source.body;
  copyAttributes(body, target.body, built, options);
  copyChildren(body, target.body, target, built, options, 0);
  fold(target, options.unfold);
  return built;
}

function copyChildren(from: Node, to: Node, target: Document, built: Built, options: Options, depth: number): void {
  if (depth > DEPTH_MAX) return;
  for (const child of from.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) to.appendChild(target.createTextNode(child.nodeValue ?? ""));
    if (child.nodeType !== Node.ELEMENT_NODE) continue;
    const element = child as Element;
    const name = element.localName;
    // Names of other namespaces are other names: what is SVG or MathML is left out.
    if (DROPPED.has(name) || element.namespaceURI !== "http://www.w3.org/1999/xhtml") continue;
    if (!ELEMENTS.has(name)) {
      copyChildren(element, to, target, built, options, depth + 1);
      continue;
    }
    const copy = target.createElement(name);
    copyAttributes(element, copy, built, options);
    if (name === "a") copyLink(element, copy as HTMLAnchorElement);
    if (name === "img" && !copyImage(element, copy as HTMLImageElement, built, options)) continue;
    to.appendChild(copy);
    copyChildren(element, copy, target, built, options, depth + 1);
  }
}

function copyAttributes(from: Element, to: HTMLElement, built: Built, options: Options): void {
  for (const { name, value } of from.attributes) {
    if (name === "style") {
      const css = safeCss(value, options.images);
      if (hasColour(css)) built.coloured = true;
      to.setAttribute("style", css);
    } else if (name === "background" && /^https:/i.test(value)) {
      built.coloured = true;
      if (options.images) to.style.backgroundImage = `url("${encodeURI(decoded(value)).replace(/["'()\\]/g, "")}")`;
      else built.remote += 1;
    } else if (ATTRIBUTES.has(name)) {
      if (name === "bgcolor") built.coloured = true;
      to.setAttribute(name, value);
    }
  }
}

function decoded(url: string): string {
  try {
    return decodeURI(url);
  } catch {
    return url;
  }
}

function copyLink(from: Element, to: HTMLAnchorElement): void {
  const href = (from.getAttribute("href") ?? "").trim();
  if (!HREF.test(href)) return;
  to.setAttribute("href", href);
  to.setAttribute("target", "_blank");
  to.setAttribute("rel", "noopener noreferrer");
  // Where it leads, before one goes there.
  to.setAttribute("title", href);
}

/** Whether the image is there to be seen. */
function copyImage(from: Element, to: HTMLImageElement, built: Built, options: Options): boolean {
  const source = (from.getAttribute("src") ?? "").trim();
  if (/^cid:/i.test(source)) {
    built.inline.push({ image: to, contentId: decoded(source.slice(4)).replace(/^<|>$/g, "") });
    return true;
  }
  if (IMAGE_DATA.test(source)) {
    to.setAttribute("src", source);
    return true;
  }
  const address = source.startsWith("//") ? `https:${source}` : source;
  if (!/^https?:/i.test(address)) return to.alt !== "";
  if (isTracker(from)) {
    const host = hostOf(address);
    if (host && !built.trackers.includes(host)) built.trackers.push(host);
    return false;
  }
  built.remote += 1;
  if (options.images) {
    // The frame's policy takes no other: a page over HTTPS would not fetch it either.
    to.setAttribute("src", address.replace(/^http:/i, "https:"));
    to.setAttribute("referrerpolicy", "no-referrer");
    to.setAttribute("loading", "lazy");
    return true;
  }
  to.setAttribute("data-blocked", "");
  return to.alt !== "";
}

function hostOf(address: string): string | null {
  try {
    return new URL(address).hostname;
  } catch {
    return null;
  }
}

function isTracker(image: Element): boolean {
  const side = (name: string): number => {
    const attribute = Number.parseFloat(image.getAttribute(name) ?? "");
    const style = new RegExp(`(?:^|;)\\s*${name}\\s*:\\s*([\\d.]+)px`, "i").exec(image.getAttribute("style") ?? "");
    return style ? Number.parseFloat(style[1]!) : attribute;
  };
  const hidden = /display\s*:\s*none|visibility\s*:\s*hidden/i.test(image.getAttribute("style") ?? "");
  return hidden || side("width") <= TRACKER_PIXELS_MAX || side("height") <= TRACKER_PIXELS_MAX;
}

/**
 * Style sheets without what fetches. The frame's policy refuses to fetch in any case; this spares the reader's console, and readers of browsers
 * that have a fault there.
 */
function safeCss(css: string, images: boolean): string {
  const text = css
    .replace(/<!--|-->/g, "")
    .replace(/@import[^;]*;?/gi, "")
    .replace(/@font-face\s*\{[^}]*\}?/gi, "")
    .replace(/(?:expression|-moz-binding|behaviou?r)\s*[(:]/gi, "x-left-out:");
  return text.replace(/(?:url|src|image|image-set|-webkit-image-set)\s*\(\s*(["']?)\s*([^)"']*)\1\s*\)?/gi, (whole, _quote, address: string) => {
    if (IMAGE_DATA.test(address.trim())) return whole;
    return images && /^https:/i.test(address.trim()) ? whole : "none";
  });
}

/** Whether a background, or a colour of text that is neither black nor grey nor inherited, is set. */
function hasColour(css: string): boolean {
  return /background(?:-color|-image)?\s*:\s*(?!\s*(?:none|transparent|inherit|initial|unset|white|#fff(?:fff)?|rgb\(255,\s*255,\s*255\))\s*(?:;|!|\}|$))/i.test(css);
}

/** What repeats an earlier message at the end is folded: without a script, as `details` is. */
function fold(target: Document, unfold: string): void {
  const quotations = [...target.body.querySelectorAll(".gmail_quote, .moz-cite-prefix + blockquote, blockquote[type=cite], .yahoo_quoted, #divRplyFwdMsg ~ *")];
  const outermost = quotations.find((element) => !quotations.some((other) => other !== element && other.contains(element)));
  if (!outermost || !isAtEnd(outermost, target.body) || !hasTextBefore(outermost, target.body)) return;
  const details = target.createElement("details");
  details.className = "postrider-fold";
  const summary = target.createElement("summary");
  summary.textContent = "•••";
  summary.setAttribute("title", unfold);
  summary.setAttribute("aria-label", unfold);
  outermost.replaceWith(details);
  details.append(summary, outermost);
}

function isAtEnd(element: Element, body: Element): boolean {
  for (let at: Element = element; at !== body; at = at.parentElement!) {
    for (let next = at.nextSibling; next; next = next.nextSibling) {
      if ((next.textContent ?? "").trim() !== "") return false;
    }
    if (!at.parentElement) return false;
  }
  return true;
}

function hasTextBefore(element: Element, body: Element): boolean {
  const range = body.ownerDocument.createRange();
  range.setStart(body, 0);
  range.setEndBefore(element);
  return range.toString().trim() !== "";
}
