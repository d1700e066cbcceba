// The operator's page, built by itself: nothing of it is in what the mailbox loads, and nothing of the mailbox changes with it.
import { join } from "node:path";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

import { compressed, TARGET } from "./vite.config.ts";

const dist = join(import.meta.dirname, "dist");

export default defineConfig({
  root: "app/admin",
  base: "/webmail/",
  publicDir: false,
  plugins: [svelte({ configFile: join(import.meta.dirname, "svelte.config.js") }), compressed(dist)],
  build: {
    outDir: "../../dist",
    // Behind the mailbox's own build, which empties it.
    emptyOutDir: false,
    target: TARGET,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rollupOptions: { input: join(import.meta.dirname, "app/admin/admin.html") },
  },
});
