// The page of all models. Everything that it shows is set as text, so that no name or note of a list becomes markup.
(function () {
  const all = window.RH_MODELS, shown = 60;
  const form = document.querySelector(".models-form"), list = document.querySelector(".models-list");
  const count = document.querySelector(".models-count");

  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function options(select, values) {
    for (const value of values) select.append(element("option", value));
  }

  function block(title, text) {
    const made = document.createDocumentFragment(), pre = element("pre");
    pre.append(element("code", text));
    made.append(element("p", title), pre);
    return made;
  }

  function parameters(model) {
    const table = element("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const name of ["parameter", "type", "default", "values"]) head.append(element("th", name));
    for (const [name, required, type, value, values] of model.params) {
      const row = body.insertRow();
      row.insertCell().append(element("code", name));
      for (const text of [type, required && !value ? "required" : value, values]) row.insertCell().textContent = text;
    }
    return table;
  }

  function opened(model) {
    const body = element("div", undefined, "body");
    body.append(element("p", model.about), block("As a pipeline:", model.yaml), block("In a flow:", model.python));
    body.append(model.params.length ? parameters(model) : element("p", "RunningHub publishes no parameters of this model."));
    return body;
  }

  function entry(model) {
    const made = element("details"), line = element("summary");
    line.append(element("code", model.name), element("span", model.price, "price"));
    line.append(element("span", [model.status, ...model.tags].filter((one) => one !== "current").join(", "), "facts"));
    made.append(line);
    made.addEventListener("toggle", () => made.childElementCount > 1 || made.append(opened(model)));
    return made;
  }

  function show() {
    const [words, output, input, order] = [...form.elements].map((one) => one.value);
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = all.filter((model) => wanted.every((word) => model.search.includes(word))
      && (!output || model.output === output) && (!input || model.inputs.includes(input)));
    if (order === "by price") found.sort((a, b) => (a.least ?? Infinity) - (b.least ?? Infinity));
    list.replaceChildren(...found.slice(0, shown).map(entry));
    count.textContent = `${found.length} of ${all.length} models`
      + (found.length > shown ? `; the first ${shown} are shown: search for more words` : "");
  }

  options(form.elements[1], [...new Set(all.map((model) => model.output))].sort());
  options(form.elements[2], [...new Set(all.flatMap((model) => model.inputs))].sort());
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements[0].value = new URLSearchParams(location.search).get("q") ?? "";
  show();
})();
