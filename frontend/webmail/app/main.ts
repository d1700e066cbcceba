import { mount } from "svelte";

import App from "./App.svelte";
import "./app.css";
import { applied } from "./state/settings.svelte";
import { restore } from "./state/session.svelte";
import { workerAddress } from "./text/trusted";

const target = document.getElementById("app");
if (!target) throw new Error("the page has no place for the application");

// The language first: nothing is shown in one and then in another.
await applied();
mount(App, { target });
void restore();

if (import.meta.env.PROD && "serviceWorker" in navigator) {
  addEventListener("load", () => {
    navigator.serviceWorker.register(workerAddress()).catch(() => {
      // Without it the page needs the network to open, and nothing else changes.
    });
  });
}
