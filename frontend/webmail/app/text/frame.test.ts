import { describe, expect, it } from "vitest";

import { countsOf, entitle, fold, hostsOf, told, viewOf } from "./frame";

function framed(head: string, body: string, paper = "dark"): Document {
  return new DOMParser().parseFromString(`<!DOCTYPE html><html data-paper="${paper}"><head><meta charset="utf-8">${head}</head><body>${body}</body></html>`, "text/html");
}

describe("the frame of a message", () => {
  it("is asked for as it is to be shown", () => {
    expect(viewOf("abc", false, true)).toBe("/v1/messages/abc/view?origin=page&images=block&theme=dark");
    expect(viewOf("abc", true, false)).toBe("/v1/messages/abc/view?origin=page&images=show&theme=light");
  });

  it("says what is not in it", () => {
    const head = '<meta name="postrider-blocked" content="images=4, images-unseen=1, scripts=1, misleading-links=2, truncated=1"><meta name="postrider-trackers" content="&quot;t.example&quot;;kind=pixel, &quot;u.example&quot;;kind=hidden">';
    expect(told(framed(head, "<p>x</p>"))).toEqual({ paper: "dark", blocked: 3, trackers: ["t.example", "u.example"], misleading: 2, truncated: true });
    expect(told(framed("", "<p>x</p>", "white"))).toEqual({ paper: "white", blocked: 0, trackers: [], misleading: 0, truncated: false });
  });

  it("is no message where something else came", () => {
    expect(told(new DOMParser().parseFromString('{"status":503}', "text/html"))).toBeNull();
    expect(told(framed("", "", "pink"))).toBeNull();
  });

  it("believes nothing that stands in the message", () => {
    expect(told(framed("", '<meta name="postrider-blocked" content="images=9">'))).toMatchObject({ blocked: 0 });
  });

  it("says where its links lead", () => {
    const document = framed("", '<a href="https://a.example/x" data-destination="https://a.example/x" title="A bank">x</a>');
    entitle(document);
    expect(document.querySelector("a")?.title).toBe("https://a.example/x");
  });

  it("reads structured fields", () => {
    expect([...countsOf("images=3,scripts=10 , x, =4, y=z")]).toEqual([["images", 3], ["scripts", 10]]);
    expect(hostsOf('"a.example";kind=pixel, "b.example", "a.example";kind=image, "c.example";kind=link')).toEqual(["a.example", "b.example"]);
  });
});

describe("quotations at the end", () => {
  const folded = (body: string): Document => {
    const document = framed("", body);
    fold(document, "more");
    return document;
  };

  it("are folded", () => {
    const document = folded('<div><p>Yes.</p><div class="gmail_quote"><blockquote type="cite">Is it?</blockquote></div><br></div>');
    expect(document.querySelector("details.postrider-fold > .gmail_quote")?.textContent).toBe("Is it?");
    expect(document.querySelector("summary")?.getAttribute("aria-label")).toBe("more");
  });

  it("are not where they are all that there is, or where one answers between them", () => {
    expect(folded('<div class="gmail_quote">Is it?</div>').querySelector("details")).toBeNull();
    expect(folded('<p>Hello</p><blockquote type="cite">Is it?</blockquote><p>Yes.</p>').querySelector("details")).toBeNull();
  });
});
