// Plain text as it is read: paragraphs, what is quoted, and what of it can be folded away.

export interface Block {
  kind: "text" | "quote" | "signature";
  /** Without the signs of quoting at the beginning of lines. */
  text: string;
  /** How deep it is quoted. */
  depth: number;
}

export interface Body {
  blocks: Block[];
  /** The blocks from here on repeat what was answered, up to the end: shown when asked for. Their number when there are none. */
  foldAt: number;
}

const QUOTED = /^(?:> ?)+/;
/** A line that says who wrote what follows, in the languages of the page. */
const ATTRIBUTION = /(?:^(?:On\b.{4,200}\bwrote|.{4,200}(?:님이 작성|작성한 글|님의 말|님이 썼습니다)|Am .{4,200} schrieb .{1,120}|Le .{4,200} a écrit)\s?:?$)|(?:^-{2,}\s?(?:Original Message|Forwarded message|원본 메일|원본 메시지|전달된 메일)\s?-{2,}$)/i;

function depthOf(line: string): number {
  return (QUOTED.exec(line)?.[0].match(/>/g) ?? []).length;
}

export function bodyOf(text: string): Body {
  const lines = text.replace(/\r\n?/g, "\n").replace(/\s+$/, "").split("\n");
  const blocks: Block[] = [];
  let signature = false;
  for (const line of lines) {
    const depth = depthOf(line);
    // RFC 3676 section 4.3: dash, dash, space. Many programs lose the space.
    if (depth === 0 && (line === "-- " || line === "--")) signature = true;
    const kind = depth > 0 ? "quote" : signature ? "signature" : "text";
    const bare = depth > 0 ? line.replace(QUOTED, "") : line;
    const last = blocks.at(-1);
    if (last && last.kind === kind && last.depth === depth) last.text += `\n${bare}`;
    else blocks.push({ kind, text: bare, depth });
    if (depth > 0) signature = false;
  }
  return { blocks, foldAt: foldAt(blocks) };
}

function isAttribution(block: Block): boolean {
  const lines = block.text.trimEnd().split("\n");
  return ATTRIBUTION.test((lines.at(-1) ?? "").trim()) || ATTRIBUTION.test(lines.slice(-2).join(" ").trim());
}

/** From where on everything is quoted, but for a signature and empty lines. */
function foldAt(blocks: Block[]): number {
  let at = blocks.length;
  for (let index = blocks.length - 1; index >= 0; index -= 1) {
    const block = blocks[index]!;
    if (block.kind === "quote") at = index;
    else if (block.kind === "text" && block.text.trim() !== "") break;
  }
  if (at === blocks.length) return at;
  // What says who wrote it goes with it.
  // Where a signature stands before it, it is read as a part of that.
  const before = blocks[at - 1];
  if (before && before.kind !== "quote" && isAttribution(before)) {
    const lines = before.text.trimEnd().split("\n");
    const cut = ATTRIBUTION.test((lines.at(-1) ?? "").trim()) ? 1 : 2;
    const attribution = lines.splice(-cut).join("\n");
    before.text = lines.join("\n").trimEnd();
    const said: Block = { kind: "text", text: attribution, depth: 0 };
    if (before.text === "") {
      blocks[at - 1] = said;
      at -= 1;
    } else {
      blocks.splice(at, 0, said);
    }
  }
  // A message that is nothing but a quotation is shown.
  return at === 0 ? blocks.length : at;
}

/** An answer's quotation of what it answers. */
export function quoted(text: string): string {
  return text
    .replace(/\r\n?/g, "\n")
    .trimEnd()
    .split("\n")
    .map((line) => (line.startsWith(">") ? `>${line}` : line === "" ? ">" : `> ${line}`))
    .join("\n");
}
