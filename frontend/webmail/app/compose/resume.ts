// A draft of the mailbox, taken up again: on this device or on another one than it was written on.
import type { Message, ThreadMessage } from "../api/types";
import { newKey } from "../api/client";
import { parsed } from "../text/trusted";
import { bodyOf } from "../text/quote";
import { emptyDraft, escaped, type Draft, type DraftFile } from "./draft";

/** What a draft says of itself, from the message that it is. */
export function draftOf(message: Message, within: readonly ThreadMessage[]): Draft {
  const parent = within.find((one) => one.id === message.id)?.parent_id ?? null;
  const own = message.body_html ? ofHtml(message.body_html) : ofText(message.body ?? "");
  return {
    ...emptyDraft(),
    to: message.to,
    cc: message.cc,
    bcc: message.bcc,
    subject: message.subject,
    ...own,
    files: message.attachments.map((file): DraftFile => ({
      id: newKey(), name: file.filename, type: file.content_type, size: file.size, data: null, path: `/v1/messages/${message.id}/attachments/${file.id}`,
    })),
    // What is answered is in the mailbox, or the draft is one of its own.
    inReplyTo: within.some((one) => one.id === parent) ? parent : null,
    changedAt: Date.parse(message.date) || Date.now(),
    version: 1,
    savedVersion: 1,
    serverId: message.id,
  };
}

type Own = Pick<Draft, "html" | "text" | "isRich" | "quotedText" | "quotedLine">;

/** What was written here has its quotation where `sentText` puts it. */
function ofText(body: string): Own {
  const lines = body.replace(/\r\n?/g, "\n");
  const { blocks, foldAt } = bodyOf(lines);
  let text = lines.trimEnd();
  let quotedText = "";
  let quotedLine = "";
  const line = blocks[foldAt];
  const behind = blocks[foldAt + 1];
  if (line?.kind === "text" && behind?.kind === "quote") {
    const at = lines.lastIndexOf(`\n${line.text}\n`);
    const below = at < 0 ? null : lines.slice(at + line.text.length + 2).trimEnd();
    if (below?.split("\n").every((one) => one.startsWith(">"))) {
      quotedText = below.split("\n").map((one) => one.replace(/^> ?/, "")).join("\n");
      quotedLine = line.text;
      text = lines.slice(0, at).trimEnd();
    }
  }
  const html = text.split("\n").map((one) => `<div>${one === "" ? "<br>" : escaped(one)}</div>`).join("");
  return { html, text, isRich: false, quotedText, quotedLine };
}

function ofHtml(html: string): Own {
  const { body } = parsed(html);
  const quote = body.querySelector(":scope > div.gmail_quote");
  const line = quote?.children[0];
  const inner = quote?.children[1];
  let quotedText = "";
  let quotedLine = "";
  if (quote && line && inner?.matches("blockquote[type=cite]")) {
    quotedText = textOf(inner);
    quotedLine = textOf(line);
    const gap = quote.previousElementSibling;
    if (gap?.tagName === "BR") gap.remove();
    quote.remove();
  }
  const only = body.children.length === 1 && body.children[0]?.tagName === "DIV" ? body.children[0] : body;
  return { html: only.innerHTML, text: textOf(only), isRich: true, quotedText, quotedLine };
}

const LINES = /^(?:DIV|P|LI|BLOCKQUOTE|UL|OL|H[1-6]|PRE)$/;

function textOf(node: Element): string {
  let text = "";
  const walk = (at: Node): void => {
    for (const child of at.childNodes) {
      if (child.nodeType === Node.TEXT_NODE) text += child.textContent ?? "";
      else if (child.nodeName === "BR") text += "\n";
      else {
        if (LINES.test(child.nodeName) && text !== "" && !text.endsWith("\n")) text += "\n";
        walk(child);
        if (LINES.test(child.nodeName) && !text.endsWith("\n")) text += "\n";
      }
    }
  };
  walk(node);
  return text.trimEnd();
}
