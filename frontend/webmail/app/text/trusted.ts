// The page's own Trusted Types policy: the only places where text becomes something that a browser parses or runs.

interface Policy {
  createHTML(text: string): string;
  createScriptURL(text: string): string;
}

const rules: Policy = {
  // For an inert document alone: see `parsed`, by which the editor takes up a draft.
  createHTML: (text) => text,
  createScriptURL: (url) => {
    if (url !== "/sw.js") throw new TypeError(`not a script of this page: ${url}`);
    return url;
  },
};

const factory = (globalThis as { trustedTypes?: { createPolicy(name: string, rules: Policy): Policy } }).trustedTypes;
const policy: Policy = factory?.createPolicy("postrider", rules) ?? rules;

/** A document that runs and fetches nothing, to be taken apart. */
export function parsed(html: string): Document {
  return new DOMParser().parseFromString(policy.createHTML(html), "text/html");
}

/** The service worker's address. */
export function workerAddress(): string {
  return policy.createScriptURL("/sw.js");
}
