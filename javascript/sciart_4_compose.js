/* How the LoRAs share the picture, with the settings of that way. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const recipes = sciart.recipes ||= {};

    const COMPOSE = [["merge", "mixed all over the picture"], ["switch", "in turn, one at a time"],
        ["composite", "each on its own, averaged"], ["spatial", "each where it changes most"],
        ["regions", "each in its region"], ["masked", "each where its subject is, in one go"],
        ["contrastive", "each on its own subject"]];
    const COMPOSITION = {
        switch: [["period", "Turn", 5, 1, "Steps that a LoRA acts before the next one does"]],
        composite: [],
        spatial: [
            ["temperature", "Temperature", 0.01, 0.01, "Lower: the LoRA that changes most there has it to itself"],
            ["patch", "Patch", 2, 1, "Side of the squares that are weighed; 1 is 8 pixels of the picture"],
            ["recenter", "Base model", 0.5, 0.05, "Its share in what the negative prompt takes away"],
        ],
        regions: [["feather", "Soft edges", 0, 0.05, "Their width, as a share of the picture's shorter side"]],
    };
    const NUMBERS = [
        ["until", "Hold until", 0.3, 0.05, "Share of the steps before which the subjects are held in their places"],
        ["mask_threshold", "Mask threshold", 0.3, 0.05,
            "From which share of a word's strongest attention its subject's area counts"],
        ["temperature", "Temperature", 0.5, 0.1, "Lower: subjects are kept apart harder"],
        ["target", "Loss to stop at", 0, 0.1, "A step is refined no further once its loss is this low"],
    ];
    const TEXTS = [
        ["opacity", "Own share", "1@0, 0.35@0.4, 0.35@0.7, 0@0.75",
            "How much of each LoRA's own prediction counts in its area, as share@progress; the rest is the mixture's"],
        ["opacity_crowded", "Own share, crowded", "1@0, 0.7@0.4, 0.7@0.75, 0@0.8",
            "The same for subjects of one kind, two rockets say, or for three and more, which the mixture mixes up"],
        ["refine", "Refine", "1@0",
            "How often the picture is held in one step, as times@progress: 5@0 is five times in the first step"],
    ];

    /** Points as they are typed: [[0, 1], [0.4, 0.5]] and {"0": 1, "0.4": 0.5} are `1@0, 0.5@0.4`. */
    function asText(points) {
        if (!points || typeof points !== "object") return points ?? "";
        const pairs = Array.isArray(points) ? points : Object.entries(points);
        return pairs.map(([progress, value]) => `${value}@${progress}`).join(", ");
    }

    /** `5@0, 2@0.2` → {"0": 5, "0.2": 2}; what is not of that form stays as it is, and Python says what is wrong. */
    function asTimes(text) {
        const pairs = text.split(",").map((part) => /^\s*(\d+)\s*@\s*([\d.]+)\s*$/.exec(part));
        if (!text.trim()) return undefined;
        return pairs.every(Boolean) ? Object.fromEntries(pairs.map(([, times, progress]) => [progress, Number(times)]))
            : text;
    }

    /** The part of a panel below its rows; `of` shows the recipe that the panel has now. */
    sciart.Compose = class {
        constructor(panel) {
            this.panel = panel;
            this.node = dom.h("div", {class: "sciart-compose"});
        }

        show() {
            const recipe = this.panel.recipe;
            const wanted = recipe && (recipe.loras.length > 1 || recipe.compose !== undefined);
            this.node.replaceChildren(...(wanted ? [this.drawChoice(recipe)] : []),
                ...(wanted && recipe.compose === "contrastive" ? [this.drawAdvanced(recipe)] : []));
        }

        drawChoice(recipe) {
            const select = dom.h("select", {"data-field": "compose", onchange: () => this.choose(select.value)},
                ...dom.options(COMPOSE, recipe.compose || "merge"));
            const line = dom.h("div", {class: "sciart-line"}, dom.labelled("LoRAs act", select, "sciart-grow"));
            if (recipe.compose === "contrastive") {
                line.append(dom.labelled("Strength", this.number("guidance", "strength", 40, 1,
                    "How firmly the subjects are held in their places; 0: areas only"), "sciart-small"), this.drawNoises());
            }
            if (recipe.compose === "masked") line.append(...this.drawMasking(recipe));
            if (COMPOSITION[recipe.compose]) line.append(...this.drawComposition(recipe));
            return line;
        }

        drawMasking(recipe) {
            const given = this.given(recipe, "guidance");
            const hires = this.box("guidance", "hires", given.hires !== false, (on) => on ? undefined : false);
            const show = this.box("guidance", "show", given.show === true, (on) => on || undefined);
            return [this.drawNoises(), dom.labelled("Mask threshold", this.number("masking", "threshold", 0.15, 0.05,
                "From which share of a word's strongest attention its subject's area counts"), "sciart-small"),
                dom.labelled("Negative share", this.number("masking", "negative", 0.9, 0.05,
                    "How much of its weight a subject's LoRA has in the negative prompt; less brings it out more"),
                "sciart-small"),
                dom.h("label", {class: "sciart-check"}, hires, "in the hires pass too (otherwise mixed there)"),
                dom.h("label", {class: "sciart-check"}, show, "show the areas beside the result")];
        }

        drawNoises() {
            return dom.labelled("Noises", this.number("guidance", "noises", 1, 1,
                "Of how many noises from the seed the one is taken in which the subjects lie farthest apart; each takes time"),
            "sciart-small");
        }

        drawComposition(recipe) {
            const fields = COMPOSITION[recipe.compose].map(([key, text, usual, step, title]) =>
                dom.labelled(text, this.number("composition", key, usual, step, title), "sciart-small"));
            if (recipe.compose === "switch") fields.push(dom.labelled("Order", this.drawOrder(recipe), "sciart-medium"));
            const given = this.given(recipe, "composition");
            const hires = this.box("composition", "hires", given.hires !== false, (on) => on ? undefined : false);
            if (recipe.compose === "regions") {
                const rows = this.box("composition", "rows", given.rows === "one", (on) => on ? "one" : undefined);
                fields.push(dom.h("label", {class: "sciart-check", title:
                    "All regions in the rows of a plain picture: quicker where there are many"}, rows, "in one go"));
            }
            return [...fields, dom.h("label", {class: "sciart-check"}, hires, "in the hires pass too")];
        }

        drawOrder(recipe) {
            const {order} = this.given(recipe, "composition");
            const input = dom.h("input", {type: "text", value: Array.isArray(order) ? order.join(", ") : order,
                placeholder: "as listed, subjects first", title: "Names of the LoRAs in the order of their turns",
                "data-field": "composition.order", autocomplete: "off", spellcheck: "false", oninput: () => {
                    const names = input.value.split(",").map((name) => name.trim()).filter(Boolean);
                    this.set("composition", "order", names.length ? names : undefined);
                }});
            return input;
        }

        drawAdvanced(recipe) {
            const given = this.given(recipe, "guidance");
            const fields = NUMBERS.map(([key, text, usual, step, title]) =>
                dom.labelled(text, this.number("guidance", key, usual, step, title), "sciart-small"));
            fields.push(...TEXTS.map(([key, text, usual, title]) => dom.labelled(text, this.text(key, usual, title),
                "sciart-grow")));
            const masks = this.box("guidance", "masks", given.masks !== false, (on) => on ? undefined : false);
            const regions = this.box("guidance", "regions", given.regions === "attention", (on) => on ? "attention" : undefined);
            const hires = this.box("guidance", "hires", given.hires !== false, (on) => on ? undefined : false);
            const offload = this.box("guidance", "offload", given.offload === true, (on) => on || undefined);
            const show = this.box("guidance", "show", given.show === true, (on) => on || undefined);
            const used = Object.keys(given).some((key) => key !== "strength" && key !== "noises");
            return dom.h("details", {class: "sciart-fold", open: used}, dom.h("summary", {}, "Advanced"),
                dom.h("div", {class: "sciart-line"}, ...fields),
                dom.h("label", {class: "sciart-check"}, masks, "each LoRA only in its subject's area"),
                dom.h("label", {class: "sciart-check"}, regions, "in a region only where its subject is seen in it"),
                dom.h("label", {class: "sciart-check"}, hires, "in the hires pass too (otherwise mixed there)"),
                dom.h("label", {class: "sciart-check"}, offload, "save memory of the graphics card (slower)"),
                dom.h("label", {class: "sciart-check"}, show, "show the areas beside the result"));
        }

        box(group, key, checked, valueOf) {
            const input = dom.h("input", {type: "checkbox", checked, "data-field": `${group}.${key}`,
                oninput: () => this.set(group, key, valueOf(input.checked))});
            return input;
        }

        number(group, key, usual, step, title) {
            const input = dom.h("input", {type: "number", min: 0, step, value: this.given(this.panel.recipe, group)[key],
                placeholder: usual, title, "data-field": `${group}.${key}`,
                oninput: () => this.set(group, key, input.value === "" ? undefined : Number(input.value))});
            return input;
        }

        text(key, usual, title) {
            const input = dom.h("input", {type: "text", value: asText(this.given(this.panel.recipe, "guidance")[key]),
                placeholder: usual, title, "data-field": `guidance.${key}`,
                oninput: () => this.set("guidance", key,
                    key === "refine" ? asTimes(input.value) : input.value.trim() || undefined)});
            return input;
        }

        given(recipe, group) {
            return recipes.isObject(recipe[group]) ? recipe[group] : {};
        }

        choose(compose) {
            this.panel.edit((recipe) => {
                recipe.compose = compose === "merge" ? undefined : compose;
                recipe.composition = recipe.masking = undefined;  // of another way, they would change nothing
            });
        }

        set(group, key, value) {
            const settings = {...this.given(this.panel.recipe, group), [key]: value};
            if (value === undefined) delete settings[key];
            this.panel.recipe[group] = Object.keys(settings).length ? settings : undefined;
            this.panel.write();
        }
    };
})();
