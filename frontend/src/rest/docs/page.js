"use strict";

const token = document.getElementById("token");
const state = document.getElementById("state");

// Everything that comes from the document is put in as text, never as markup.
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function schemaName(schema) {
  return schema.$ref ? schema.$ref.split("/").pop() : null;
}

function typeText(schema) {
  if (!schema) return "";
  const name = schemaName(schema);
  if (name) return name;
  if (schema.oneOf) return schema.oneOf.map(typeText).join(" | ");
  if (schema.allOf) return schema.allOf.map(typeText).join(" & ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const types = [].concat(schema.type ?? "any");
  return types.map((type) => (type === "array" ? `${typeText(schema.items)}[]` : schema.format ? `${type} (${schema.format})` : type)).join(" | ");
}

function sample(schema, schemas, depth = 0) {
  if (!schema || depth > 6) return null;
  const name = schemaName(schema);
  if (name) return sample(schemas[name], schemas, depth + 1);
  if (schema.example !== undefined) return schema.example;
  if (schema.oneOf) return sample(schema.oneOf.find((one) => one.type !== "null"), schemas, depth + 1);
  const type = [].concat(schema.type ?? "object").find((one) => one !== "null");
  if (type === "array") return [sample(schema.items, schemas, depth + 1)];
  if (type === "boolean") return true;
  if (type === "integer" || type === "number") return schema.minimum ?? 0;
  if (type === "string") return schema.enum ? schema.enum[0] : "";
  const made = {};
  for (const [key, property] of Object.entries(schema.properties ?? {})) made[key] = sample(property, schemas, depth + 1);
  return made;
}

function fields(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, property]) =>
    element("tr", {},
      element("td", {}, element("code", { textContent: name + (required.has(name) ? "" : "?") })),
      element("td", {}, element("code", { textContent: typeText(property) })),
      element("td", {}, ...markdownCell(property.description, element))));
  return rows.length ? element("table", {}, element("tbody", {}, ...rows)) : element("code", { textContent: typeText(schema) });
}

function input(parameter) {
  const schema = parameter.schema ?? {};
  const types = [].concat(schema.type ?? "string");
  if (types.includes("boolean")) {
    return element("select", {}, ...["", "true", "false"].map((value) => element("option", { value, textContent: value })));
  }
  return element("input", { placeholder: typeText(schema), autocomplete: "off" });
}

function parametersTable(parameters, inputs) {
  if (!parameters.length) return null;
  const rows = parameters.map((parameter) => {
    const field = input(parameter);
    inputs.push({ parameter, field });
    return element("tr", {},
      element("td", {}, element("code", { textContent: parameter.name + (parameter.required ? "" : "?") })),
      element("td", {}, field),
      element("td", {}, ...markdownCell(`${parameter.description ?? ""} (${parameter.in})`, element)));
  });
  return element("table", {}, element("tbody", {}, ...rows));
}

function responsesTable(responses) {
  const rows = Object.entries(responses).map(([status, response]) => {
    const schema = Object.values(response.content ?? {})[0]?.schema;
    return element("tr", {},
      element("td", {}, element("code", { textContent: status })),
      element("td", {}, ...markdownCell(response.description, element)),
      element("td", {}, element("code", { textContent: typeText(schema) })));
  });
  return element("table", {}, element("tbody", {}, ...rows));
}

async function send(method, path, inputs, body) {
  const query = new URLSearchParams();
  const headers = {};
  let url = path;
  for (const { parameter, field } of inputs) {
    if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(field.value));
    else if (field.value === "") continue;
    else if (parameter.in === "query") query.set(parameter.name, field.value);
    else headers[parameter.name] = field.value;
  }
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  if (body !== null) headers["Content-Type"] = "application/json";
  if ([...query].length) url += `?${query}`;
  const started = performance.now();
  const response = await fetch(url, { method: method.toUpperCase(), headers, body });
  const text = await response.text();
  const took = Math.round(performance.now() - started);
  let shown = text;
  try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: shown as it is */ }
  const fieldsText = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  return { ok: response.ok, line: `${method.toUpperCase()} ${url} → ${response.status} in ${took} ms`, text: `${fieldsText}\n\n${shown}` };
}

function operation(path, method, spec, schemas) {
  const inputs = [];
  const content = spec.requestBody?.content?.["application/json"];
  const area = content ? element("textarea", { value: JSON.stringify(sample(content.schema, schemas), null, 2), spellcheck: false }) : null;
  const line = element("p", {});
  const output = element("pre", { hidden: true });
  const button = element("button", { type: "button", textContent: "Send" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const answer = await send(method, path, inputs, area ? area.value : null);
      line.textContent = answer.line;
      line.className = answer.ok ? "" : "bad";
      output.textContent = answer.text;
      output.hidden = false;
    } catch (error) {
      line.textContent = String(error);
      line.className = "bad";
    } finally {
      button.disabled = false;
    }
  });
  return element("details", {},
    element("summary", {},
      element("span", { className: `method ${method}`, textContent: method.toUpperCase() }),
      element("span", { className: "path", textContent: path }),
      element("span", { className: "what" }, ...markdownInline(spec.summary ?? "", element))),
    element("div", {},
      ...markdown(spec.description, element),
      parametersTable(spec.parameters ?? [], inputs),
      area ? element("h3", { textContent: `Body: ${typeText(content.schema)}` }) : null,
      area,
      button, line, output,
      element("h3", { textContent: "Responses" }),
      responsesTable(spec.responses)));
}

function show(api) {
  const schemas = api.components?.schemas ?? {};
  document.getElementById("about").replaceChildren(
    ...markdown(api.info.description, element),
    element("p", {}, element("a", { href: "/openapi.json", textContent: "/openapi.json" })));
  const sections = api.tags.map((tag) => {
    const operations = [];
    for (const [path, item] of Object.entries(api.paths)) {
      for (const [method, spec] of Object.entries(item)) {
        if (spec.tags?.includes(tag.name)) operations.push(operation(path, method, spec, schemas));
      }
    }
    return element("section", {}, element("h2", {}, `${tag.name}: `, ...markdownInline(tag.description ?? "", element)), ...operations);
  });
  document.getElementById("paths").replaceChildren(...sections);
  document.getElementById("schemas").replaceChildren(...Object.entries(schemas).map(([name, schema]) =>
    element("details", {},
      element("summary", {}, element("span", { className: "path", textContent: name })),
      element("div", {}, ...markdown(schema.description, element), fields(schema)))));
}

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const credentials = { address: document.getElementById("address").value, password: document.getElementById("password").value };
  const response = await fetch("/v1/sessions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(credentials),
  });
  const answer = await response.json();
  if (response.ok) token.value = answer.token;
  state.textContent = response.ok ? `logged in until ${answer.expires_at}` : answer.title;
});

fetch("/openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch((error) => { document.getElementById("paths").textContent = String(error); });
