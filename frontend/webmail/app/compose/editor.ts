// The editor of what is written: ProseMirror with what mail needs. Loaded when writing begins.
import { baseKeymap, chainCommands, exitCode, lift, toggleMark, wrapIn } from "prosemirror-commands";
import { history, redo, undo } from "prosemirror-history";
import { inputRules, wrappingInputRule } from "prosemirror-inputrules";
import { keymap } from "prosemirror-keymap";
import { DOMParser as Reader, DOMSerializer, Schema, type Node as Content } from "prosemirror-model";
import { liftListItem, sinkListItem, splitListItem, wrapInList } from "prosemirror-schema-list";
import { EditorState, type Command } from "prosemirror-state";
import { EditorView } from "prosemirror-view";

import { parsed } from "../text/trusted";

const schema = new Schema({
  nodes: {
    doc: { content: "block+" },
    // Lines, not paragraphs: what one types in mail, and what it looks like to whoever gets it.
    paragraph: { content: "inline*", group: "block", parseDOM: [{ tag: "p" }, { tag: "div" }], toDOM: () => ["div", 0] },
    blockquote: { content: "block+", group: "block", defining: true, parseDOM: [{ tag: "blockquote" }], toDOM: () => ["blockquote", 0] },
    bullet_list: { content: "list_item+", group: "block", parseDOM: [{ tag: "ul" }], toDOM: () => ["ul", 0] },
    ordered_list: { content: "list_item+", group: "block", parseDOM: [{ tag: "ol" }], toDOM: () => ["ol", 0] },
    list_item: { content: "paragraph block*", defining: true, parseDOM: [{ tag: "li" }], toDOM: () => ["li", 0] },
    hard_break: { inline: true, group: "inline", selectable: false, parseDOM: [{ tag: "br" }], toDOM: () => ["br"] },
    text: { group: "inline" },
  },
  marks: {
    link: {
      attrs: { href: {} },
      inclusive: false,
      parseDOM: [
        {
          tag: "a[href]",
          getAttrs: (element) => {
            const href = (element as HTMLElement).getAttribute("href") ?? "";
            return /^(?:https?:|mailto:)/i.test(href) ? { href } : false;
          },
        },
      ],
      toDOM: (mark) => ["a", { href: mark.attrs["href"] as string, rel: "noopener noreferrer" }, 0],
    },
    strong: {
      parseDOM: [{ tag: "strong" }, { tag: "b", getAttrs: (element) => (element as HTMLElement).style.fontWeight !== "normal" && null }, { style: "font-weight=bold" }],
      toDOM: () => ["strong", 0],
    },
    em: { parseDOM: [{ tag: "i" }, { tag: "em" }, { style: "font-style=italic" }], toDOM: () => ["em", 0] },
    underline: { parseDOM: [{ tag: "u" }, { style: "text-decoration=underline" }], toDOM: () => ["u", 0] },
  },
});

const { nodes, marks } = schema;

export type Tool = "strong" | "em" | "underline" | "bullet_list" | "ordered_list" | "blockquote" | "plain";

const COMMANDS: Record<Tool, Command> = {
  strong: toggleMark(marks.strong!),
  em: toggleMark(marks.em!),
  underline: toggleMark(marks.underline!),
  bullet_list: listCommand("bullet_list"),
  ordered_list: listCommand("ordered_list"),
  blockquote: (state, dispatch, view) => (isWithin(state, "blockquote") ? lift(state, dispatch) : wrapIn(nodes.blockquote!)(state, dispatch, view)),
  plain: (state, dispatch) => {
    const { from, to, empty } = state.selection;
    const [start, end] = empty ? [0, state.doc.content.size] : [from, to];
    dispatch?.(state.tr.removeMark(start, end));
    return true;
  },
};

function listCommand(name: "bullet_list" | "ordered_list"): Command {
  return (state, dispatch, view) =>
    isWithin(state, name) ? liftListItem(nodes.list_item!)(state, dispatch) : wrapInList(nodes[name]!)(state, dispatch, view);
}

function isWithin(state: EditorState, name: string): boolean {
  const { $from } = state.selection;
  for (let depth = $from.depth; depth > 0; depth -= 1) if ($from.node(depth).type.name === name) return true;
  return false;
}

export interface Written {
  html: string;
  text: string;
  isRich: boolean;
}

export interface Editor {
  focus(): void;
  run(tool: Tool): void;
  link(href: string | null): void;
  /** Puts text where one writes. */
  append(text: string): void;
  /** Shows another text, which is nothing that was written here. */
  replace(html: string): void;
  destroy(): void;
}

export interface EditorOptions {
  html: string;
  label: string;
  /** Something was written. */
  onChange: (written: Written) => void;
  /** What holds where one writes. */
  onActive: (active: ReadonlySet<string>) => void;
  /** Files that were pasted. */
  onFiles: (files: File[]) => void;
  onSend: () => void;
  onLink: () => void;
}

export function edit(mount: HTMLElement, options: EditorOptions): Editor {
  const said = (act: () => void): Command => () => {
    act();
    return true;
  };
  const breaks = chainCommands(exitCode, (state, dispatch) => {
    dispatch?.(state.tr.replaceSelectionWith(nodes.hard_break!.create()).scrollIntoView());
    return true;
  });
  const state = EditorState.create({
    doc: Reader.fromSchema(schema).parse(parsed(options.html).body),
    plugins: [
      inputRules({ rules: [wrappingInputRule(/^\s*([-*])\s$/, nodes.bullet_list!), wrappingInputRule(/^(\d+)\.\s$/, nodes.ordered_list!), wrappingInputRule(/^\s*>\s$/, nodes.blockquote!)] }),
      history(),
      keymap({
        "Mod-Enter": said(options.onSend),
        "Mod-k": said(options.onLink),
        "Mod-b": COMMANDS.strong,
        "Mod-i": COMMANDS.em,
        "Mod-u": COMMANDS.underline,
        "Mod-z": undo,
        "Mod-y": redo,
        "Shift-Mod-z": redo,
        "Shift-Mod-7": COMMANDS.ordered_list,
        "Shift-Mod-8": COMMANDS.bullet_list,
        "Shift-Mod-9": COMMANDS.blockquote,
        "Mod-\\": COMMANDS.plain,
        Enter: splitListItem(nodes.list_item!),
        "Shift-Enter": breaks,
        "Mod-[": liftListItem(nodes.list_item!),
        "Mod-]": sinkListItem(nodes.list_item!),
      }),
      keymap(baseKeymap),
    ],
  });
  const view: EditorView = new EditorView(mount, {
    state,
    attributes: { role: "textbox", "aria-multiline": "true", "aria-label": options.label, spellcheck: "true" },
    dispatchTransaction: (transaction) => {
      const next = view.state.apply(transaction);
      view.updateState(next);
      if (transaction.docChanged) options.onChange(written(next.doc));
      options.onActive(activeIn(next));
    },
    handlePaste: (_view, event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      // What was copied in an office program has a picture of itself beside its text.
      if (files.length === 0 || event.clipboardData?.types.includes("text/html")) return false;
      options.onFiles(files);
      return true;
    },
    handleDrop: (_view, event) => (event.dataTransfer?.files.length ?? 0) > 0,
  });
  return {
    focus: () => view.focus(),
    run: (tool) => {
      COMMANDS[tool](view.state, view.dispatch, view);
      view.focus();
    },
    link: (href) => {
      const { from, to, empty } = view.state.selection;
      let transaction = view.state.tr;
      if (href === null) transaction = transaction.removeMark(from, to, marks.link!);
      else if (empty) transaction = transaction.insert(from, schema.text(href, [marks.link!.create({ href })]));
      else transaction = transaction.addMark(from, to, marks.link!.create({ href }));
      view.dispatch(transaction);
      view.focus();
    },
    append: (text) => {
      const lines = text.split("\n").map((line) => nodes.paragraph!.create(null, line ? schema.text(line) : null));
      view.dispatch(view.state.tr.insert(view.state.doc.content.size, lines));
    },
    replace: (html) => {
      const doc = Reader.fromSchema(schema).parse(parsed(html).body);
      view.updateState(EditorState.create({ doc, plugins: view.state.plugins }));
    },
    destroy: () => view.destroy(),
  };
}

function activeIn(state: EditorState): ReadonlySet<string> {
  const active = new Set<string>();
  const { from, to, empty, $from } = state.selection;
  for (const [name, mark] of Object.entries(marks)) {
    const has = empty ? mark.isInSet(state.storedMarks ?? $from.marks()) !== undefined : state.doc.rangeHasMark(from, to, mark);
    if (has) active.add(name);
  }
  for (const name of ["blockquote", "bullet_list", "ordered_list"]) if (isWithin(state, name)) active.add(name);
  return active;
}

export function written(doc: Content): Written {
  const holder = document.createElement("div");
  holder.append(DOMSerializer.fromSchema(schema).serializeFragment(doc.content));
  // A line without anything has no height where it is read.
  for (const line of holder.querySelectorAll("div")) if (!line.hasChildNodes()) line.append(document.createElement("br"));
  let isRich = false;
  doc.descendants((node) => {
    if (node.marks.length > 0 || !["paragraph", "text", "hard_break"].includes(node.type.name)) isRich = true;
  });
  return { html: holder.innerHTML, text: textOf(doc, "").join("\n"), isRich };
}

/** As lines of plain text. */
function textOf(node: Content, prefix: string): string[] {
  const lines: string[] = [];
  node.forEach((child) => {
    switch (child.type.name) {
      case "paragraph":
        lines.push(...inlineText(child).split("\n").map((line) => (prefix + line).replace(/ +$/, prefix.trim() === "" && line === "--" ? " " : "")));
        break;
      case "blockquote":
        lines.push(...textOf(child, "").map((line) => `${prefix}> ${line}`));
        break;
      case "bullet_list":
      case "ordered_list":
        child.forEach((item, _at, number) => {
          const sign = child.type.name === "bullet_list" ? "- " : `${number + 1}. `;
          const inner = textOf(item, "");
          lines.push(...inner.map((line, at) => prefix + (at === 0 ? sign : " ".repeat(sign.length)) + line));
        });
        break;
      default:
        lines.push(prefix + child.textContent);
    }
  });
  return lines;
}

function inlineText(node: Content): string {
  let text = "";
  node.forEach((child) => {
    if (child.type.name === "hard_break") text += "\n";
    else {
      const link = child.marks.find((mark) => mark.type.name === "link");
      const href = link?.attrs["href"] as string | undefined;
      text += child.text ?? "";
      // Where it leads would be lost.
      if (href && href !== child.text && href !== `mailto:${child.text}`) text += ` <${href}>`;
    }
  });
  return text;
}
