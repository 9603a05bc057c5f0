/* The SciArt panel. Its widgets only edit the recipe, one JSON text in a hidden textbox: the script's argument.
   What needs knowledge (names, presets, validation, the plot) is asked from Python through a hidden bridge.
   From the host: gradioApp, onUiLoaded, updateInput. */
(function() {
    "use strict";

    const PREVIEW_DELAY = 200;
    const ANSWER_TIMEOUT = 60000;
    const RECIPE_KEYS = ["enabled", "preset", "roles", "loras"];
    const LORA_KEYS = ["name", "role", "weight", "schedule", "curve", "te_weight", "blocks", "apply_to", "hires"];
    const LORA_DEFAULTS = {curve: "linear", apply_to: "both"};
    const APPLY_TO = {both: "prompt and negative", cond: "prompt only", uncond: "negative only"};
    const BLOCKS = {in: "Factor for the UNet's input blocks", mid: "Factor for the UNet's middle block",
        out: "Factor for the UNet's output blocks"};
    const SETTING_LABELS = {CLIP_stop_at_last_layers: "Clip skip", sd_model_checkpoint: "Model hash",
        sd_vae: "VAE", eta_noise_seed_delta: "ENSD"};

    const panels = {};
    let fields = 0;


    // ---- elements

    function h(tag, attributes, ...children) {
        const node = document.createElement(tag);
        for (const [key, value] of Object.entries(attributes || {})) {
            if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
            else if (value === true) node.setAttribute(key, "");
            else if (value !== false && value != null) node.setAttribute(key, value);
        }
        node.append(...children.filter((child) => child != null));
        return node;
    }

    function labelled(text, control, className) {
        control.id = control.id || `sciart_field_${++fields}`;
        return h("div", {class: `sciart-field ${className || ""}`},
            h("label", {class: "sciart-label", for: control.id}, text), control);
    }

    function button(text, onclick, attributes) {
        return h("button", {type: "button", class: "sciart-button", onclick, ...attributes}, text);
    }

    function options(values, chosen) {
        return values.map(([value, text]) => h("option", {value, selected: value === chosen}, text));
    }

    function find(selector) {
        return gradioApp().querySelector(selector);
    }

    function setValue(field, value) {
        field.value = value;
        updateInput(field);
    }


    // ---- the recipe and its text

    function isObject(value) {
        return value !== null && typeof value === "object" && !Array.isArray(value);
    }

    /** The recipe of a text, or null where it has none that rows can be drawn for: Python then says why. */
    function readRecipe(text) {
        if (!text.trim()) return {enabled: false, loras: []};
        let recipe;
        try {
            recipe = JSON.parse(text);
        } catch (error) {
            return null;
        }
        if (recipe === null) return {enabled: false, loras: []};
        if (!isObject(recipe)) return null;
        recipe = {...recipe, loras: recipe.loras === undefined ? [] : recipe.loras};
        return Array.isArray(recipe.loras) && recipe.loras.every(isObject) ? recipe : null;
    }

    function ordered(object, keys) {
        const known = keys.filter((key) => object[key] !== undefined).map((key) => [key, object[key]]);
        const others = Object.entries(object).filter(([key]) => !keys.includes(key));
        return Object.fromEntries([...known, ...others]);
    }

    /** The recipe without what is a default anyway. */
    function withoutDefaults(recipe) {
        const {enabled, loras, ...rest} = recipe;
        const kept = {...rest};
        if (enabled !== undefined && enabled !== true) kept.enabled = enabled;
        if (loras.length) kept.loras = loras.map(loraWithoutDefaults);
        return ordered(kept, RECIPE_KEYS);
    }

    function loraWithoutDefaults(lora) {
        const kept = Object.entries(lora).filter(([key, value]) => value !== undefined && value !== null &&
            value !== LORA_DEFAULTS[key] && !(isObject(value) && !Object.keys(value).length));
        return ordered(Object.fromEntries(kept), LORA_KEYS);
    }

    function isEmpty(recipe) {
        return Object.keys(withoutDefaults(recipe)).every((key) => key === "enabled");
    }

    function recipeText(recipe, indent) {
        if (recipe.enabled === false && isEmpty(recipe)) return "";
        return JSON.stringify(withoutDefaults(recipe), null, indent);
    }

    /** Points as the short text `0.2@0, 0.65@0.5`; what is a text already stays as it was typed. */
    function scheduleText(schedule) {
        if (!Array.isArray(schedule)) return schedule == null ? "" : String(schedule);
        return schedule.map((point) => `${point[1]}@${point[0]}`).join(", ");
    }

    function largestWeight(schedule) {
        const weights = scheduleText(schedule).split(/[,;]/).map((part) => parseFloat(part)).filter(isFinite);
        return weights.reduce((most, weight) => Math.abs(weight) > Math.abs(most) ? weight : most, 0) || 1;
    }

    function hiresText(hires) {
        if (!isObject(hires)) return "";
        return hires.schedule != null ? scheduleText(hires.schedule) : hires.weight == null ? "" : String(hires.weight);
    }

    /** The hires entry with the typed weight or schedule; what else it had stays. */
    function hiresFromText(text, before) {
        const {weight, schedule, ...others} = isObject(before) ? before : {};
        if (!text.trim()) return others;
        const number = Number(text);
        return isFinite(number) ? {weight: number, ...others} : {schedule: text.trim(), ...others};
    }


    // ---- the host's widgets

    function numberOf(id) {
        const field = find(`#${id} input[type=number]`) || find(`#${id} input`);
        return field && field.value !== "" && isFinite(Number(field.value)) ? Number(field.value) : undefined;
    }

    function choiceOf(id) {
        const field = find(`#${id} input:checked`) || find(`#${id} input:not([type=radio])`);
        return field && field.value ? field.value : undefined;
    }

    function textOf(id) {
        const field = find(`#${id} textarea`);
        return field ? field.value : undefined;
    }

    function hiresIsOn(tab) {
        const tick = tab === "txt2img" && find("#txt2img_hr-visible-checkbox");
        return Boolean(tick && tick.checked);
    }

    function stepsOf(tab) {
        const steps = numberOf(`${tab}_steps`) || 20;
        return {steps, hires_steps: hiresIsOn(tab) ? numberOf("txt2img_hires_steps") || steps : 0};
    }

    /** The page's prompt and settings under the API's names; what the page lacks is left out. */
    function currentSettings(tab) {
        const settings = {
            prompt: textOf(`${tab}_prompt`), negative_prompt: textOf(`${tab}_neg_prompt`),
            seed: numberOf(`${tab}_seed`), steps: numberOf(`${tab}_steps`), cfg_scale: numberOf(`${tab}_cfg_scale`),
            width: numberOf(`${tab}_width`), height: numberOf(`${tab}_height`),
            sampler_name: choiceOf(`${tab}_sampling`), scheduler: choiceOf(`${tab}_scheduler`),
        };
        if (hiresIsOn(tab)) {
            Object.assign(settings, {
                enable_hr: true, hr_scale: numberOf("txt2img_hr_scale"), hr_upscaler: choiceOf("txt2img_hr_upscaler"),
                hr_second_pass_steps: numberOf("txt2img_hires_steps"),
                denoising_strength: numberOf("txt2img_denoising_strength"),
            });
        }
        return JSON.parse(JSON.stringify(settings));
    }

    /** The host's own quoting of an infotext value. */
    function quoted(value) {
        return /[,:\n]/.test(String(value)) ? JSON.stringify(value) : String(value);
    }

    /** A preset as the infotext of a picture made with it: the host's paste then sets everything. */
    function infotext(tab, settings, prompt, recipe) {
        const now = currentSettings(tab);
        // the host takes a last line with fewer than three values for a part of the prompt
        const s = {steps: now.steps, cfg_scale: now.cfg_scale, seed: now.seed, ...settings};
        const pairs = [["Steps", s.steps], ["Sampler", s.sampler_name], ["Schedule type", s.scheduler],
            ["CFG scale", s.cfg_scale], ["Seed", s.seed],
            ["Size", s.width && s.height ? `${s.width}x${s.height}` : undefined]];
        if (s.enable_hr && tab === "txt2img") {
            pairs.push(["Denoising strength", s.denoising_strength ?? 0.7], ["Hires upscale", s.hr_scale ?? 2],
                ["Hires steps", s.hr_second_pass_steps], ["Hires upscaler", s.hr_upscaler]);
        } else if (!s.enable_hr && tab === "img2img") {
            pairs.push(["Denoising strength", s.denoising_strength]);
        }
        for (const [key, label] of Object.entries(SETTING_LABELS)) pairs.push([label, s.override_settings?.[key]]);
        pairs.push(["SciArt", recipe]);
        const given = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
        const negative = s.negative_prompt ?? now.negative_prompt;
        return [prompt ?? s.prompt ?? now.prompt ?? "", ...(negative ? [`Negative prompt: ${negative}`] : []),
            given.map(([key, value]) => `${key}: ${quoted(value)}`).join(", ")].join("\n");
    }

    function pasteInfotext(tab, text) {
        const prompt = find(`#${tab}_prompt textarea`);
        const paste = find(`#${tab}_tools #paste`);
        if (!prompt || !paste) throw new Error("the page has no prompt box or no paste button ↙");
        setValue(prompt, text);
        setTimeout(() => paste.click());
    }

    async function copyText(field) {
        if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(field.value);
        field.select();
        document.execCommand("copy");
    }


    // ---- asking Python

    /** Carries questions through the tab's hidden button, one at a time: gradio drops a click while one is pending. */
    class Bridge {
        constructor(tab) {
            this.tab = tab;
            this.waiting = [];
            this.current = null;
            this.count = 0;
        }

        ask(action, fields) {
            return new Promise((resolve) => {
                if (action === "preview") this.drop("preview");
                this.waiting.push({id: ++this.count, action, fields, resolve});
                this.next();
            });
        }

        /** Only the newest preview is of interest. */
        drop(action) {
            this.waiting.filter((one) => one.action === action).forEach((one) => one.resolve(null));
            this.waiting = this.waiting.filter((one) => one.action !== action);
        }

        next() {
            if (this.current || !this.waiting.length) return;
            this.current = this.waiting.shift();
            this.timer = setTimeout(() => this.finish({error: "SciArt: no answer from the WebUI"}), ANSWER_TIMEOUT);
            find(`#sciart_${this.tab}_ask`).click();
        }

        question() {
            if (!this.current) return ["{}"];
            return [JSON.stringify({id: this.current.id, action: this.current.action, ...this.current.fields})];
        }

        answered(text) {
            let answer = {};
            try {
                answer = JSON.parse(text);
            } catch (error) {
                // an empty answer: the very first question failed
            }
            if (!this.current) return;
            const failure = {error: "SciArt could not answer; the WebUI's console says why"};
            this.finish(answer.id === this.current.id ? answer : failure);
        }

        finish(answer) {
            clearTimeout(this.timer);
            const {resolve} = this.current;
            this.current = null;
            resolve(answer);
            setTimeout(() => this.next());
        }
    }


    // ---- one LoRA

    class Row {
        constructor(panel, lora, index) {
            this.panel = panel;
            this.lora = lora;
            this.index = index;
            this.lastWeight = typeof lora.weight === "number" ? lora.weight : largestWeight(lora.schedule);
            this.node = this.draw();
            this.showWhichWins();
        }

        draw() {
            const title = `LoRA ${this.index + 1}`;
            return h("div", {class: "sciart-row", role: "group", "aria-label": title, "data-index": this.index,
                style: `--sciart-color: ${this.panel.color(this.index)}`},
            h("div", {class: "sciart-line"}, this.drawName(title), this.drawWeight(), this.drawRemove()),
            h("div", {class: "sciart-line"}, this.drawSchedule(), this.drawCurve(), this.drawTextEncoder()),
            this.drawMore());
        }

        drawName(title) {
            if (this.lora.role !== undefined && this.lora.name === undefined) {
                const binding = this.panel.drawBinding(this.lora.role);
                return labelled(`${title}: role “${this.lora.role}”`, binding, "sciart-name");
            }
            const input = h("input", {type: "text", value: this.lora.name, list: this.panel.id("names"),
                "data-field": "name", placeholder: "name of a LoRA", autocomplete: "off", spellcheck: "false",
                oninput: () => this.set("name", input.value.trim() || undefined)});
            return labelled(title, input, "sciart-name");
        }

        drawRemove() {
            return button("✕", () => this.panel.remove(this.index), {class: "sciart-button sciart-tool",
                title: "Remove", "aria-label": `Remove LoRA ${this.index + 1}`});
        }

        drawWeight() {
            const id = this.panel.id(`weight_${this.index}`);
            this.slider = h("input", {type: "range", min: -1, max: 2, step: 0.05, "aria-label": "Weight, slider",
                oninput: () => this.setWeight(this.slider.value)});
            this.number = h("input", {type: "number", min: -10, max: 10, step: 0.05, id, "data-field": "weight",
                oninput: () => this.setWeight(this.number.value)});
            this.weightLabel = h("label", {class: "sciart-label", for: id}, "Weight");
            this.weight = h("div", {class: "sciart-field sciart-weight"},
                this.weightLabel, h("div", {class: "sciart-pair"}, this.slider, this.number));
            this.showWeight(this.lastWeight);
            return this.weight;
        }

        drawSchedule() {
            this.schedule = h("input", {type: "text", value: scheduleText(this.lora.schedule), "data-field": "schedule",
                placeholder: "0.2@0, 0.65@0.5", autocomplete: "off", spellcheck: "false",
                title: "WEIGHT@PROGRESS, ...; progress runs from 0, the first step, to 1, the last",
                oninput: () => this.setSchedule(this.schedule.value.trim())});
            return labelled("Schedule (weight@progress)", this.schedule, "sciart-schedule");
        }

        drawCurve() {
            this.curve = h("select", {"data-field": "curve", title: "Between the points of the schedule",
                onchange: () => this.set("curve", this.curve.value)},
            ...options(["linear", "step", "cosine"].map((name) => [name, name]), this.lora.curve || "linear"));
            return labelled("Curve", this.curve, "sciart-small");
        }

        drawTextEncoder() {
            return labelled("Text encoder", this.numberInput("te_weight", this.lora.te_weight, "automatic",
                "Weight in the text encoder; empty: the weight, or the largest of the schedule",
                (value) => this.set("te_weight", value)), "sciart-small");
        }

        numberInput(field, value, placeholder, title, change) {
            const input = h("input", {type: "number", min: -10, max: 10, step: 0.05, value, placeholder, title,
                "data-field": field, oninput: () => change(input.value === "" ? undefined : Number(input.value))});
            return input;
        }

        drawMore() {
            const {apply_to: applyTo, blocks, hires} = this.lora;
            const where = h("select", {"data-field": "apply_to", onchange: () => this.set("apply_to", where.value)},
                ...options(Object.entries(APPLY_TO), applyTo || "both"));
            const late = h("input", {type: "text", value: hiresText(hires), "data-field": "hires", autocomplete: "off",
                placeholder: "as at the end",
                title: "A weight or a schedule for the hires pass; empty: the weight it ended with",
                oninput: () => this.set("hires", hiresFromText(late.value, this.lora.hires))});
            const factors = Object.entries(BLOCKS).map(([key, text]) => this.numberInput(`blocks.${key}`,
                isObject(blocks) ? blocks[key] : undefined, `${key} 1`, text, (value) => this.setBlock(key, value)));
            factors.forEach((factor) => factor.setAttribute("aria-label", factor.title));
            const used = ["apply_to", "blocks", "hires"].some((key) => key in loraWithoutDefaults(this.lora));
            return h("details", {class: "sciart-fold", open: used}, h("summary", {}, "More"),
                h("div", {class: "sciart-line"},
                    labelled("Apply to", where, "sciart-medium"),
                    labelled("Hires weight or schedule", late, "sciart-medium"),
                    this.drawGroup("Block factors", factors)));
        }

        drawGroup(text, inputs) {
            return h("div", {class: "sciart-field sciart-medium", role: "group", "aria-label": text},
                h("span", {class: "sciart-label"}, text), h("div", {class: "sciart-pair"}, ...inputs));
        }

        set(key, value) {
            this.lora[key] = value;
            this.panel.write();
        }

        setBlock(key, value) {
            const blocks = {...this.lora.blocks, [key]: value};
            if (value === undefined || value === 1) delete blocks[key];
            this.set("blocks", blocks);
        }

        /** A weight replaces the schedule. */
        setWeight(text) {
            const weight = text === "" ? undefined : Number(text);
            if (weight !== undefined) this.lastWeight = weight;
            this.showWeight(text);
            this.schedule.value = "";
            this.lora.schedule = undefined;
            this.lora.curve = undefined;
            this.curve.value = "linear";
            this.showWhichWins();
            this.set("weight", weight);
        }

        /** A schedule replaces the weight; without one the weight before it counts again. */
        setSchedule(text) {
            this.lora.weight = text ? undefined : this.lastWeight;
            this.lora.schedule = text || undefined;
            this.showWhichWins();
            this.panel.write();
        }

        showWeight(value) {
            if (document.activeElement !== this.number) this.number.value = value;
            if (value !== "") this.slider.value = value;
        }

        showWhichWins() {
            const scheduled = Boolean(this.schedule.value.trim());
            this.weight.classList.toggle("sciart-muted", scheduled);
            this.weight.title = scheduled ? "The schedule is used. Moving the weight removes the schedule." : "";
            this.weightLabel.textContent = scheduled ? "Weight (the schedule is used)" : "Weight";
            this.curve.disabled = !scheduled;
        }
    }


    // ---- the panel of one tab

    class Panel {
        constructor(tab, root) {
            this.tab = tab;
            this.root = root;
            this.bridge = new Bridge(tab);
            this.field = find(`#sciart_${tab}_recipe textarea`);
            this.palette = (root.dataset.palette || "currentColor").split(" ");
            this.choices = {loras: [], presets: [], bindings: {}, suggestions: {}};
            this.seen = false;
            this.draw();
            this.drawHeader();
            this.take(this.field.value);
            this.watch();
        }

        id(name) {
            return `sciart_${this.tab}_${name}`;
        }

        color(index) {
            return this.palette[index % this.palette.length];
        }

        // drawing

        draw() {
            this.names = h("datalist", {id: this.id("names")});
            this.note = h("div", {class: "sciart-note", role: "status"});
            this.rows = h("div", {class: "sciart-rows"});
            this.error = h("div", {class: "sciart-error", role: "alert", id: this.id("error")});
            this.plot = h("div", {class: "sciart-preview"});
            this.root.replaceChildren(this.names, this.drawPresets(), this.note, this.rows, this.drawButtons(),
                this.error, this.plot, this.drawJson());
        }

        /** The tick in the accordion's title, as the host's own accordions have it. */
        drawHeader() {
            const bar = find(`#sciart_${this.tab} .label-wrap`);
            this.tick = h("input", {type: "checkbox", class: "sciart-tick", id: this.id("enabled"),
                title: "Enable SciArt", "aria-label": "Enable SciArt",
                onclick: (event) => event.stopPropagation(), oninput: () => this.enable(this.tick.checked)});
            bar.querySelector("span").prepend(this.tick);
            const arrow = bar.querySelector(".icon");
            arrow.setAttribute("tabindex", "0");
            arrow.setAttribute("role", "button");
            arrow.setAttribute("aria-label", "Open or close the SciArt panel");
            arrow.addEventListener("keydown", (event) => {
                if (event.key !== "Enter" && event.key !== " ") return;
                event.preventDefault();
                bar.click();
            });
            this.bar = bar;
        }

        drawPresets() {
            this.preset = h("select", {onchange: () => this.showPreset()});
            this.use = button("Use preset", () => this.usePreset(), {title: "Fills the rows below"});
            this.useAll = button("Prompt & settings too", () => this.pastePreset(),
                {title: "Fills the rows, and the prompt, size, steps, sampler and seed of this page"});
            this.description = h("p", {class: "sciart-description"});
            this.prompt = h("select", {});
            this.promptField = labelled("Prompt of the preset", this.prompt, "sciart-grow");
            this.roles = h("div", {class: "sciart-line"});
            return h("div", {class: "sciart-presets"},
                h("div", {class: "sciart-line"}, labelled("Preset", this.preset, "sciart-grow"), this.use, this.useAll),
                this.description, h("div", {class: "sciart-line"}, this.promptField), this.roles);
        }

        drawButtons() {
            return h("div", {class: "sciart-line sciart-bar"},
                button("+ Add LoRA", () => this.add()),
                button("⟳", () => this.loadChoices(true), {class: "sciart-button sciart-tool",
                    title: "Look for LoRA files again", "aria-label": "Refresh the list of LoRAs"}));
        }

        drawJson() {
            this.json = h("textarea", {rows: 8, spellcheck: "false", "aria-label": "Recipe as JSON",
                oninput: () => this.takeJson(this.json.value)});
            const copy = button("Copy", async() => {
                await copyText(this.json);
                copy.textContent = "Copied";
                setTimeout(() => copy.textContent = "Copy", 1000);
            });
            this.fold = h("details", {class: "sciart-fold"}, h("summary", {}, "Recipe (JSON)"), this.json,
                h("div", {class: "sciart-line sciart-bar"}, copy));
            return h("div", {}, this.fold, this.drawSaving());
        }

        drawSaving() {
            const field = (attributes) => h("input", {type: "text", autocomplete: "off", ...attributes});
            this.saving = {
                name: field({placeholder: "my-preset", "data-saving": "name"}), title: field({"data-saving": "title"}),
                description: field({"data-saving": "description"}),
                settings: h("input", {type: "checkbox", checked: true}),
            };
            this.unsave = button("Delete the chosen preset", () => this.deletePreset(), {disabled: true});
            return h("details", {class: "sciart-fold"}, h("summary", {}, "Save as preset"),
                h("div", {class: "sciart-line"}, labelled("Name", this.saving.name, "sciart-medium"),
                    labelled("Title", this.saving.title, "sciart-medium"),
                    labelled("Description", this.saving.description, "sciart-grow")),
                h("label", {class: "sciart-check"}, this.saving.settings, "with the prompt and settings of this page"),
                h("div", {class: "sciart-line sciart-bar"},
                    button("Save preset", () => this.savePreset()), this.unsave));
        }

        drawRows() {
            const loras = this.recipe ? this.recipe.loras : [];
            this.rows.replaceChildren(...loras.map((lora, index) => new Row(this, lora, index).node));
            if (this.recipe && this.recipe.preset !== undefined) this.rows.prepend(this.drawStart());
            this.tick.checked = this.recipe ? this.recipe.enabled !== false : true;
        }

        /** Tells of a preset that the recipe itself names, as API users write it. */
        drawStart() {
            return h("div", {class: "sciart-line sciart-bar"},
                h("span", {class: "sciart-description"},
                    `Starts from the preset “${this.recipe.preset}”; what is given here counts first.`),
                button("✕", () => this.dropStart(),
                    {class: "sciart-button sciart-tool", "aria-label": "Do not start from this preset"}));
        }

        /** A select of LoRAs for one role, likely ones first. */
        drawBinding(role) {
            const names = this.choices.loras.map((lora) => lora.name);
            const likely = this.choices.suggestions[role] || [];
            const bound = this.choices.bindings[role];
            const group = (label, values) => values.length ?
                h("optgroup", {label}, ...options(values.map((name) => [name, name]), bound)) : null;
            const known = bound === undefined || names.includes(bound) || likely.includes(bound);
            const select = h("select",
                {"data-field": "name", "data-role": role, onchange: () => this.bind(role, select.value)},
                h("option", {value: ""}, "choose a LoRA"), group("bound, but not found", known ? [] : [bound]),
                group("likely", likely), group("all", names.filter((name) => !likely.includes(name))));
            select.classList.toggle("sciart-wanted", !bound);
            return select;
        }

        // the text

        /** Shows the recipe of a text that came from outside: a paste, a saved default, another tab. */
        take(text) {
            this.text = text;
            this.recipe = readRecipe(text);
            this.drawRows();
            this.json.value = this.recipe ? recipeText(this.recipe, 2) : text;
            if (!this.recipe) this.fold.open = true;
            this.showSoon();
        }

        /** The text as it is being typed: also one that cannot be read yet, so that it is never taken for another. */
        takeJson(text) {
            this.recipe = readRecipe(text);
            this.drawRows();
            this.hand(this.recipe ? recipeText(this.recipe) : text);
        }

        /** Writes the edited recipe. */
        write() {
            this.json.value = recipeText(this.recipe, 2);
            this.hand(recipeText(this.recipe));
        }

        hand(text) {
            this.text = text;
            setValue(this.field, text);
            this.showSoon();
        }

        changed(text) {
            if (text !== this.text) this.take(text || "");
        }

        edit(change) {
            if (!this.recipe) this.recipe = {loras: []};
            change(this.recipe);
            this.drawRows();
            this.write();
        }

        enable(on) {
            if (this.recipe) this.edit((recipe) => recipe.enabled = on);
            else this.tick.checked = true;
            if (on && !this.bar.classList.contains("open")) this.bar.click();
        }

        add() {
            this.edit((recipe) => {
                if (isEmpty(recipe)) recipe.enabled = true;
                recipe.loras.push({weight: 1});
            });
            this.rows.lastElementChild.querySelector("input").focus();
        }

        remove(index) {
            this.edit((recipe) => recipe.loras.splice(index, 1));
            const left = this.rows.querySelectorAll("[data-index]");
            const next = left[Math.min(index, left.length - 1)];
            (next ? next.querySelector(".sciart-tool") : this.root.querySelector(".sciart-bar button")).focus();
        }

        dropStart() {
            this.edit((recipe) => delete recipe.preset);
        }

        // presets and roles

        chosen() {
            return this.choices.presets.find((preset) => preset.name === this.preset.value);
        }

        showChoices(choices) {
            const chosen = this.preset.value;
            this.choices = choices;
            this.names.replaceChildren(...choices.loras.map((lora) => h("option", {value: lora.name},
                [lora.kind, lora.rank && `rank ${lora.rank}`].filter(Boolean).join(", "))));
            this.preset.replaceChildren(h("option", {value: ""}, "choose a preset"),
                ...options(choices.presets.map((preset) => [preset.name, preset.title || preset.name]), chosen));
            this.showPreset();
        }

        showPreset() {
            const preset = this.chosen();
            const all = preset ? [preset.txt2img?.prompt, ...(preset.prompts || [])] : [];
            const prompts = [...new Set(all.filter(Boolean))];
            this.use.disabled = this.useAll.disabled = !preset;
            this.unsave.disabled = !preset || preset.builtin;
            this.description.textContent = preset ? preset.description : "";
            const prompt = prompts.includes(this.prompt.value) ? this.prompt.value : prompts[0];
            this.prompt.replaceChildren(...options(prompts.map((text) => [text, text]), prompt));
            this.promptField.classList.toggle("sciart-hidden", prompts.length < 2);
            this.roles.replaceChildren(...(preset?.roles || []).map((role) =>
                labelled(`LoRA for “${role}”`, this.drawBinding(role), "sciart-medium")));
        }

        /** The chosen preset's recipe, its roles replaced by the LoRAs bound to them. */
        presetRecipe() {
            const recipe = structuredClone(this.chosen().recipe);
            return {...recipe, enabled: true, loras: (recipe.loras || []).map((lora) => this.bound(lora))};
        }

        bound(lora) {
            const {role, ...others} = lora;
            const name = role === undefined ? undefined : this.choices.bindings[role];
            return name ? {name, ...others} : lora;
        }

        usePreset() {
            this.recipe = this.presetRecipe();
            this.drawRows();
            this.write();
        }

        pastePreset() {
            const preset = this.chosen();
            const prompt = this.prompt.value || undefined;
            const text = infotext(this.tab, preset.txt2img || {}, prompt, recipeText(this.presetRecipe()));
            try {
                pasteInfotext(this.tab, text);
            } catch (error) {
                this.say(error.message);
            }
        }

        async bind(role, name) {
            if (!await this.change("bind", {bindings: {[role]: name}}) || !this.recipe || !name) return;
            if (!this.recipe.loras.some((lora) => lora.role === role)) return;
            this.edit((recipe) => {
                recipe.loras = recipe.loras.map((lora) => lora.role === role ? this.bound(lora) : lora);
            });
        }

        async savePreset() {
            const {name, title, description, settings} = this.saving;
            if (!this.recipe) return this.say("recipe: not valid JSON; nothing to save");
            const {enabled, ...recipe} = withoutDefaults(this.recipe);
            const preset = {title: title.value.trim() || name.value.trim(), description: description.value.trim(),
                recipe, txt2img: settings.checked ? currentSettings(this.tab) : {}};
            if (!await this.change("save_preset", {name: name.value.trim(), preset})) return;
            this.preset.value = name.value.trim();
            this.showPreset();
            this.say(`Saved as “${name.value.trim()}”`);
        }

        async deletePreset() {
            const name = this.preset.value;
            if (!confirm(`Delete the preset “${name}”?`)) return;
            if (await this.change("delete_preset", {name})) this.say(`Deleted “${name}”`);
        }

        // asking

        async loadChoices(refresh) {
            await this.change("choices", {refresh: Boolean(refresh)});
            // other rows have nothing that changes, and one of them may just be typed into
            if (this.recipe && this.recipe.loras.some((lora) => lora.role !== undefined)) this.drawRows();
            if (refresh) this.showSoon();
        }

        /** Asks for a change and shows the choices after it, or why it could not be; true when it was done. */
        async change(action, fields) {
            const answer = await this.bridge.ask(action, fields);
            this.say(answer.error || "", answer.field);
            if (answer.choices) this.showChoices(answer.choices);
            return !answer.error;
        }

        say(message, field) {
            this.note.textContent = message;
            for (const input of this.root.querySelectorAll("[data-saving]")) {
                input.toggleAttribute("aria-invalid", input.dataset.saving === field);
            }
        }

        showSoon() {
            clearTimeout(this.soon);
            if (this.seen) this.soon = setTimeout(() => this.show(), PREVIEW_DELAY);
        }

        async show() {
            if (this.recipe && isEmpty(this.recipe)) {
                this.drop("preview");
                this.plot.replaceChildren();
                return this.showError(this.recipe.enabled === false ? {} : {error: "Add a LoRA or use a preset."});
            }
            const answer = await this.bridge.ask("preview", {recipe: this.previewText(), ...stepsOf(this.tab)});
            if (!answer) return;
            if (!answer.error) this.plot.innerHTML = answer.html;
            this.plot.classList.toggle("sciart-muted", Boolean(answer.error) || this.recipe.enabled === false);
            this.showError(answer);
        }

        drop(action) {
            this.bridge.drop(action);
        }

        /** What is switched off is checked and drawn as well. */
        previewText() {
            if (!this.recipe || this.recipe.enabled !== false) return this.text;
            const {enabled, ...rest} = withoutDefaults(this.recipe);
            return JSON.stringify(rest);
        }

        showError(answer) {
            this.error.textContent = answer.error || "";
            for (const input of this.root.querySelectorAll("[aria-errormessage]")) {
                input.removeAttribute("aria-invalid");
                input.removeAttribute("aria-errormessage");
            }
            const input = answer.field && this.inputOf(answer.field);
            if (!input) return;
            input.setAttribute("aria-invalid", "true");
            input.setAttribute("aria-errormessage", this.error.id);
            const fold = input.closest("details");
            if (fold) fold.open = true;
        }

        /** The widget of a field such as `loras[1].schedule[0].weight`; what has none is found in the JSON. */
        inputOf(field) {
            const [, index, rest] = field.match(/^loras\[(\d+)\]\.?(.*)$/) || [];
            const row = index === undefined ? null : this.rows.querySelector(`[data-index="${index}"]`);
            const part = rest === "role" ? "name" : rest;
            const inputs = row ? [...row.querySelectorAll("[data-field]")] : [];
            return inputs.find(({dataset}) => part === dataset.field || part.startsWith(dataset.field + ".") ||
                part.startsWith(dataset.field + "[")) || this.json;
        }

        /** Asks nothing until the panel is looked at; draws anew when the number of steps changes. */
        watch() {
            new IntersectionObserver((entries, observer) => {
                if (!entries.some((entry) => entry.isIntersecting)) return;
                observer.disconnect();
                this.seen = true;
                this.loadChoices(false);
                this.showSoon();
            }).observe(this.root);
            const steps = [`#${this.tab}_steps`, "#txt2img_hires_steps", "#txt2img_hr"].join(", ");
            gradioApp().addEventListener("input", (event) => {
                if (event.target instanceof Element && event.target.closest(steps)) this.showSoon();
            });
        }
    }


    // ---- what the page calls

    window.sciart = {
        question: (tab) => panels[tab] ? panels[tab].bridge.question() : ["{}"],
        answered: (tab, text) => panels[tab] && panels[tab].bridge.answered(text),
        recipeChanged: (tab, text) => panels[tab] && panels[tab].changed(text),
    };

    onUiLoaded(function() {
        for (const root of gradioApp().querySelectorAll(".sciart-panel")) {
            panels[root.dataset.tab] = new Panel(root.dataset.tab, root);
        }
    });
})();
