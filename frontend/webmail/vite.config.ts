// What is built, and how: hashed names below /webmail/assets, each file beside its compressed forms.
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/// Smaller files are sent as they are: their head is longer than what compression spares.
const COMPRESSED_BYTES_MIN = 512;

/// What browsers have to know.
export const TARGET = ["chrome111", "firefox115", "safari16.4"];

/// Writes FILE.br and FILE.gz beside each text file of the build that has none yet.
export function compressed(folder: string): Plugin {
  const visit = (at: string): void => {
    for (const name of readdirSync(at)) {
      const path = join(at, name);
      if (statSync(path).isDirectory()) visit(path);
      else if (/\.(html|js|css|svg|webmanifest)$/.test(name)) write(path);
    }
  };
  const write = (path: string): void => {
    const bytes = readFileSync(path);
    if (bytes.length < COMPRESSED_BYTES_MIN || existsSync(`${path}.br`)) return;
    writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }));
    writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
  };
  return { name: "compressed", apply: "build", closeBundle: () => visit(folder) };
}

/// Writes licences.txt: whose work is within the build, and under which terms.
function licences(folder: string): Plugin {
  const packages = new Set<string>();
  return {
    name: "licences",
    apply: "build",
    generateBundle(_options, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== "chunk") continue;
        for (const id of chunk.moduleIds) {
          const found = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id)?.[1];
          if (found) packages.add(found);
        }
      }
    },
    closeBundle() {
      const texts = [...packages].sort().map((path) => {
        const { name, version, license } = JSON.parse(readFileSync(join(path, "package.json"), "utf8")) as Record<string, string>;
        const file = readdirSync(path).find((one) => /^licen[cs]e/i.test(one));
        return `${name} ${version} (${license})\n\n${file ? readFileSync(join(path, file), "utf8").trim() : ""}\n`;
      });
      writeFileSync(join(folder, "licences.txt"), texts.join("\n----\n\n"));
    },
  };
}

/// Where `npm run dev` finds the interface: a frontend of a demo.
const interfaceAt = process.env.POSTRIDER_REST ?? "http://127.0.1.1:8080";

export default defineConfig(({ command }) => ({
  root: "app",
  // The page is at the root, its files are below /webmail: while developing both are at the root.
  base: command === "build" ? "/webmail/" : "/",
  plugins: [svelte({ configFile: join(import.meta.dirname, "svelte.config.js") }), licences(join(import.meta.dirname, "dist")), compressed(join(import.meta.dirname, "dist"))],
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    target: TARGET,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    // The service worker is a file of `public/`: it stands at the root and has no hash in its name.
  },
  server: { proxy: { "/v1": { target: interfaceAt, ws: true }, "/healthz": interfaceAt } },
  test: { root: ".", include: ["app/**/*.test.ts"], environment: "jsdom" },
  resolve: { conditions: ["browser"] },
}));
