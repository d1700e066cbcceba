// A draft as REST v1 takes it.
import { sentHtml, sentText, type Draft } from "./draft";
import { uploads } from "./uploads.svelte";

/** Waits for the files; what is said of the rest is what stands there then. */
export async function outgoing(draft: Draft): Promise<{ body: Record<string, unknown>; version: number }> {
  const files = [...draft.files];
  // An upload has at least one byte (docs/api/rest.md): a file without any is named with its content.
  const ids = await Promise.all(files.map((file) => (file.size === 0 ? null : uploads.of(file))));
  const attachments = files.map((file, index) => ({
    filename: file.name,
    content_type: file.type || "application/octet-stream",
    ...(ids[index] ? { upload_id: ids[index] } : { data: "" }),
  }));
  const html = sentHtml(draft);
  const people = (list: Draft["to"]): Draft["to"] => list.map(({ name, email }) => ({ name, email }));
  const isWhole = draft.files.length === files.length && draft.files.every((file, index) => file.id === files[index]?.id);
  return {
    // Files that were added meanwhile are in the next version.
    version: isWhole ? draft.version : draft.version - 1,
    body: {
      to: people(draft.to),
      cc: people(draft.cc),
      bcc: people(draft.bcc),
      subject: draft.subject,
      body: sentText(draft),
      ...(html === null ? {} : { body_html: html }),
      ...(attachments.length > 0 ? { attachments } : {}),
      ...(draft.inReplyTo ? { in_reply_to: draft.inReplyTo } : {}),
    },
  };
}
