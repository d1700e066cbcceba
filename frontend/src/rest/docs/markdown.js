"use strict";

// The markdown that descriptions hold: paragraphs, lists, headings, tables, fenced code; code, strong, emphasis and links within a
// line. Everything is put in as text of elements that are made here, never as markup, and links lead to this server only.

// The rest of a line: code goes before everything else, because nothing in it is markup.
const INLINE = /(`+)(.+?)\1(?!`)|\*\*(.+?)\*\*|\*([^\s*](?:[^*]*[^\s*])?)\*|\[([^\]]+)\]\(([^()\s]+)\)/;

function markdownInline(text, make) {
  const nodes = [];
  let rest = text;
  for (let found = INLINE.exec(rest); found; found = INLINE.exec(rest)) {
    const [all, , code, strong, emphasis, label, link] = found;
    if (found.index) nodes.push(rest.slice(0, found.index));
    if (code !== undefined) nodes.push(make("code", { textContent: code.trim() }));
    else if (strong !== undefined) nodes.push(make("strong", {}, ...markdownInline(strong, make)));
    else if (emphasis !== undefined) nodes.push(make("em", {}, ...markdownInline(emphasis, make)));
    else if (/^[/#](?!\/)/.test(link)) nodes.push(make("a", { href: link }, ...markdownInline(label, make)));
    else nodes.push(...markdownInline(label, make), ` (${link})`);
    rest = rest.slice(found.index + all.length);
  }
  if (rest) nodes.push(rest);
  return nodes;
}

const ITEM = /^\s*(?:[-*+]|\d+[.)])\s+(.*)$/;
const FENCE = /^\s*```/;
const HEADING = /^\s*#{1,6}\s+(.*?)\s*#*$/;
const ROW = /^\s*\|(.*)\|\s*$/;

// Takes the lines from the front that `is` holds for.
function takeWhile(lines, is) {
  const taken = [];
  while (lines.length && is(lines[0], taken.length)) taken.push(lines.shift());
  return taken;
}

function markdownList(lines, make) {
  const items = [];
  const ordered = /^\s*\d/.test(lines[0]);
  for (const line of takeWhile(lines, (line) => line.trim() && (ITEM.test(line) || /^\s/.test(line)))) {
    const item = ITEM.exec(line);
    if (item) items.push(item[1]);
    else items.push(`${items.pop()} ${line.trim()}`);
  }
  return make(ordered ? "ol" : "ul", {}, ...items.map((item) => make("li", {}, ...markdownInline(item, make))));
}

function markdownTable(lines, make) {
  const rows = takeWhile(lines, (line) => ROW.test(line)).map((line) => ROW.exec(line)[1].split("|").map((cell) => cell.trim()));
  const isRule = (row) => row.every((cell) => /^:?-+:?$/.test(cell));
  const cells = (row, name) => row.map((cell) => make(name, {}, ...markdownInline(cell, make)));
  const hasHead = rows.length > 1 && isRule(rows[1]);
  const body = rows.filter((row) => !isRule(row));
  return make("table", {}, ...body.map((row, at) => make("tr", {}, ...cells(row, hasHead && at === 0 ? "th" : "td"))));
}

// The blocks of a text, as elements that `make(name, properties, ...children)` makes.
function markdown(text, make) {
  const lines = (text ?? "").split(/\r?\n/);
  const blocks = [];
  while (lines.length) {
    const line = lines[0];
    if (!line.trim()) {
      lines.shift();
    } else if (FENCE.test(line)) {
      lines.shift();
      const code = takeWhile(lines, (line) => !FENCE.test(line));
      lines.shift();
      blocks.push(make("pre", { textContent: code.join("\n") }));
    } else if (HEADING.test(line)) {
      blocks.push(make("h4", {}, ...markdownInline(HEADING.exec(lines.shift())[1], make)));
    } else if (ITEM.test(line)) {
      blocks.push(markdownList(lines, make));
    } else if (ROW.test(line)) {
      blocks.push(markdownTable(lines, make));
    } else {
      const isText = (line, at) => line.trim() && (at === 0 || ![FENCE, HEADING, ITEM, ROW].some((other) => other.test(line)));
      blocks.push(make("p", {}, ...markdownInline(takeWhile(lines, isText).map((line) => line.trim()).join(" "), make)));
    }
  }
  return blocks;
}

// The same for a cell of a table: one paragraph stands there without being one.
function markdownCell(text, make) {
  const lines = (text ?? "").split(/\r?\n/).filter((line) => line.trim());
  return lines.length === 1 ? markdownInline(lines[0].trim(), make) : markdown(text, make);
}
