// The document that `GET /v1/messages/{id}/view` makes of a message, as the page finds it in its frame: what it says of itself, and quotations folded.
//
// Nothing of a message is parsed here. What is in the frame's document was built on the other side; it is looked at, and elements of it are moved.

/** What is said of a message, which the page tells its reader. */
export interface Told {
  /** What it stands on: the page's own colours, or the white that it was written for. */
  paper: "white" | "light" | "dark";
  /** Images that somebody would see and that were not fetched. */
  blocked: number;
  /** Hosts that would have been told that it was read, by images. */
  trackers: string[];
  /** Links whose text names another place than they lead to. */
  misleading: number;
  /** Not all of it is shown. */
  truncated: boolean;
}

/** Where a message is shown from. */
export function viewOf(message: string, images: boolean, dark: boolean): string {
  return `/v1/messages/${message}/view?origin=page&images=${images ? "show" : "block"}&theme=${dark ? "dark" : "light"}`;
}

/** What the document says of itself; null of one that is no message: an error, or nothing that came. */
export function told(document: Document): Told | null {
  const paper = document.documentElement?.dataset["paper"];
  if (paper !== "white" && paper !== "light" && paper !== "dark") return null;
  const field = (name: string): string => document.querySelector<HTMLMetaElement>(`head > meta[name="${name}" i]`)?.content ?? "";
  const counts = countsOf(field("postrider-blocked"));
  return {
    paper,
    blocked: Math.max(0, (counts.get("images") ?? 0) - (counts.get("images-unseen") ?? 0)),
    trackers: hostsOf(field("postrider-trackers")),
    misleading: counts.get("misleading-links") ?? 0,
    truncated: (counts.get("truncated") ?? 0) > 0,
  };
}

/** A dictionary of counts (RFC 9651 section 3.2). */
export function countsOf(text: string): Map<string, number> {
  const members = text.split(",").map((member) => /^\s*([a-z][a-z0-9-]*)=(\d+)\s*$/.exec(member));
  return new Map(members.flatMap((member) => (member ? [[member[1]!, Number(member[2])]] : [])));
}

/** The strings of a list with parameters (RFC 9651 section 3.1), each once; links that tell are still there, and are told of by where they lead. */
export function hostsOf(text: string): string[] {
  return [...new Set([...text.matchAll(/"([^"\\]*)"(?:;kind=([a-z]+))?/g)].filter((found) => found[2] !== "link").map((found) => found[1]!))];
}

/** Where a link leads is seen before one goes there. */
export function entitle(document: Document): void {
  for (const link of document.querySelectorAll<HTMLAnchorElement>("a[data-destination]")) link.title = link.dataset["destination"]!;
}

/** What repeats an earlier message at the end is folded: without a script, as `details` is. */
export function fold(document: Document, unfold: string): void {
  const { body } = document;
  const quotations = [...body.querySelectorAll(".gmail_quote, .moz-cite-prefix + blockquote, blockquote[type=cite], .yahoo_quoted")];
  const outermost = quotations.find((element) => !quotations.some((other) => other !== element && other.contains(element)));
  if (!outermost || !isAtEnd(outermost, body) || !hasTextBefore(outermost, body)) return;
  const details = document.createElement("details");
  details.className = "postrider-fold";
  const summary = document.createElement("summary");
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
