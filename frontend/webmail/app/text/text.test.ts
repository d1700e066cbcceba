import { describe, expect, it } from "vitest";

import { device } from "./device";
import { linked } from "./links";
import { marked } from "./marks";
import { answerTo, initials, localPart, recipients } from "./people";
import { has, term, tokens, withOnly, withTerm, without } from "./query";
import { bodyOf, quoted } from "./quote";
import { answerSubject, bareSubject, forwardSubject } from "./subject";
import { short, size, span } from "./when";

const box = (email: string, name = "") => ({ name, email });

describe("quotations", () => {
  it("are folded with the line that says whose they are", () => {
    const body = bodyOf("Yes.\n\nAda\n\nOn Mon, 30 Nov 2026, Bora wrote:\n> Shall we?\n>> Whatever\n> ok\n");
    expect(body.blocks.slice(0, body.foldAt).map((block) => block.text)).toEqual(["Yes.\n\nAda"]);
    expect(body.blocks.slice(body.foldAt).map((block) => [block.kind, block.depth])).toEqual([["text", 0], ["quote", 1], ["quote", 2], ["quote", 1]]);
  });

  it("folds what is quoted below a signature, with the line that says who wrote it", () => {
    const body = bodyOf("Yes.\n\n-- \nAda\n\nOn Saturday, Lena wrote:\n> Is it?\n");
    expect(body.blocks.slice(0, body.foldAt).map((block) => block.text)).toEqual(["Yes.\n", "-- \nAda"]);
    expect(body.blocks.slice(body.foldAt).map((block) => block.text)).toEqual(["On Saturday, Lena wrote:", "Is it?"]);
  });

  it("are folded in Korean", () => {
    const body = bodyOf("네, 좋습니다.\n\n2026년 11월 30일 (월) 오후 3:00, 김하늘 <h@example.com>님이 작성:\n> 회의할까요?");
    expect(body.foldAt).toBe(1);
    expect(body.blocks[0]!.text).toBe("네, 좋습니다.");
  });

  it("stay where an answer stands below them", () => {
    const body = bodyOf("> Shall we?\n\nYes.");
    expect(body.foldAt).toBe(body.blocks.length);
  });

  it("are shown where there is nothing else", () => {
    const body = bodyOf("> only this");
    expect(body.foldAt).toBe(body.blocks.length);
  });

  it("know a signature", () => {
    expect(bodyOf("Hi\n-- \nAda\nPostrider").blocks.map((block) => block.kind)).toEqual(["text", "signature"]);
  });

  it("are written a level deeper", () => {
    expect(quoted("a\n\n> b\n")).toBe("> a\n>\n>> b");
  });
});

describe("links", () => {
  it("end where the sentence goes on", () => {
    expect(linked("See https://a.example/x_(y)?q=1, or (http://b.example). Write to ada@c.example!")).toEqual([
      { text: "See " },
      { text: "https://a.example/x_(y)?q=1", href: "https://a.example/x_(y)?q=1" },
      { text: ", or (" },
      { text: "http://b.example", href: "http://b.example/" },
      { text: "). Write to " },
      { text: "ada@c.example", href: "mailto:ada@c.example" },
      { text: "!" },
    ]);
  });

  it("lead to the web and to people, and nowhere else", () => {
    for (const text of ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"]) {
      expect(linked(text).every((piece) => piece.href === undefined), text).toBe(true);
    }
  });
});

describe("marks", () => {
  it("cut a text at UTF-16 units", () => {
    expect(marked("🙂 budget", [{ start: 3, end: 9 }])).toEqual([{ text: "🙂 ", marked: false }, { text: "budget", marked: true }]);
  });
  it("that are not within the text are left out", () => {
    expect(marked("abc", [{ start: 2, end: 9 }])).toEqual([{ text: "abc", marked: false }]);
  });
});

describe("people", () => {
  it("are split at the last @", () => {
    expect(localPart('"a@b"@c.example')).toBe('"a@b"');
  });
  it("are taken out of what is pasted", () => {
    expect(recipients('Ada <ada@a.example>, "Smith, J." <j@b.example>; c@d.example, nobody')).toEqual({
      found: [box("ada@a.example", "Ada"), box("j@b.example", "Smith, J."), box("c@d.example")],
      rest: "nobody",
    });
  });
  it("have initials in every script", () => {
    expect([initials(box("x@y", "Ada Mora")), initials(box("x@y", "김하늘")), initials(box("news@y"))]).toEqual(["AM", "김", "N"]);
  });
  it("who answer all write to everybody but themselves", () => {
    const message = { from: box("b@x"), reply_to: [], to: [box("me@x"), box("c@x")], cc: [box("d@x"), box("B@x")] };
    expect(answerTo(message, ["me@x"], true)).toEqual({ to: [box("b@x")], cc: [box("c@x"), box("d@x")] });
    expect(answerTo({ ...message, reply_to: [box("list@x")] }, ["me@x"], false)).toEqual({ to: [box("list@x")], cc: [] });
  });
  it("who answer themselves go on writing to the same people", () => {
    expect(answerTo({ from: box("me@x"), reply_to: [], to: [box("c@x")], cc: [box("d@x")] }, ["ME@x"], true)).toEqual({ to: [box("c@x")], cc: [box("d@x")] });
  });
});

describe("searches", () => {
  it("are taken apart as the interface does", () => {
    expect(tokens('budget -from:ada "annual report" in:"To do" re:not').map((token) => [token.operator, token.value, token.negated])).toEqual([
      [null, "budget", false], ["from", "ada", true], [null, '"annual report"', false], ["in", "To do", false], [null, "re:not", false],
    ]);
  });
  it("gain and lose terms", () => {
    expect(withTerm("budget", "is:unread")).toBe("budget is:unread");
    expect(without("budget IS:unread", "is:unread")).toBe("budget");
    expect(has("a is:unread", "is:unread")).toBe(true);
    expect(withOnly("a in:inbox b", "in", "To do")).toBe('a b in:"To do"');
    expect(term("label", "work")).toBe("label:work");
  });
});

describe("subjects", () => {
  it("have one prefix", () => {
    expect(answerSubject("RE: re[2]: Fwd: AW: Plan")).toBe("Re: Plan");
    expect(forwardSubject("답장: 회의")).toBe("Fwd: 회의");
    expect(bareSubject("Regarding: x")).toBe("Regarding: x");
  });
});

describe("times and sizes", () => {
  const now = new Date(2026, 10, 30, 15, 0);
  it("are as short as they may be", () => {
    expect(short(new Date(2026, 10, 30, 9, 5).toISOString(), "en", now)).toBe("9:05 AM");
    expect(short(new Date(2026, 10, 3).toISOString(), "en", now)).toBe("Nov 3");
    expect(short(new Date(2026, 10, 3).toISOString(), "ko", now)).toBe("11월 3일");
    expect(short(new Date(2024, 1, 3).toISOString(), "en", now)).toBe("Feb 3, 2024");
    expect(short("never", "en", now)).toBe("");
  });
  it("are said in words", () => {
    expect([span(1200, "en"), span(61_000, "en"), span(3_600_001, "ko")]).toEqual(["2 seconds", "2 minutes", "2시간"]);
    expect(size(1536, "en")).toBe("1.5 kB");
  });
});

describe("devices", () => {
  it("are called by browser and system", () => {
    expect(device("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36")).toBe("Chrome · macOS");
    expect(device("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 Safari/604.1")).toBe("Safari · iPhone");
    expect(device("curl/8.5")).toBe("curl");
    expect(device("")).toBe(null);
  });
});
