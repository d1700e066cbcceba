import { mount } from "svelte";

import "../app.css";
import "./admin.css";
import Admin from "./Admin.svelte";
import { applied } from "./state/look.svelte";
import { restore } from "./state/session.svelte";

const target = document.getElementById("app");
if (!target) throw new Error("the page has no place for the application");

// The language first: nothing is shown in one and then in another.
await applied();
mount(Admin, { target });
void restore();
