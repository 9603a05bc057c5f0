/* How the LoRAs' changes of the weights are joined: by their sum, or so that they get less in each other's way. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const recipes = sciart.recipes ||= {};

    const METHODS = [["linear", "by their sum"], ["orthogonal", "each leaves the stronger ones their directions"],
        ["ties", "large entries, by majority of signs (TIES)"], ["dare-linear", "random entries, by sum (DARE)"],
        ["dare-ties", "random entries, by majority of signs (DARE-TIES)"], ["magnitude-prune", "large entries, by sum"]];
    const NUMBERS = {
        density: ["Density", "0.5", {min: 0.01, max: 1, step: 0.05}, "Share of each LoRA's entries that is kept"],
        seed: ["Seed", "0", {min: 0, step: 1}, "Of the random entries that are kept"],
        directions: ["Directions", "16", {min: 1, step: 1},
            "How many of a LoRA's strongest directions are left to it by those of smaller weight"],
        strength: ["Strength", "0.25", {min: 0, max: 1, step: 0.05},
            "How much of what lies in those directions the LoRAs of smaller weight give up; 0: nothing"],
    };
    const READS = {"orthogonal": ["directions", "strength"], "ties": ["density"], "magnitude-prune": ["density"],
        "dare-linear": ["density", "seed"], "dare-ties": ["density", "seed"]};

    /** The line of a panel that chooses it; `show` draws what its recipe has now. */
    sciart.Combine = class {
        constructor(panel) {
            this.panel = panel;
            this.node = dom.h("div", {class: "sciart-combine"});
        }

        show() {
            const recipe = this.panel.recipe;
            const wanted = recipe && (recipe.loras.length > 1 || recipe.combine !== undefined);
            this.node.replaceChildren(...(wanted ? [this.draw(recipe.combine || "linear")] : []));
        }

        draw(method) {
            const select = dom.h("select", {"data-field": "combine", onchange: () => this.choose(select.value)},
                ...dom.options(METHODS, method));
            const numbers = (READS[method] || []).map((key) => this.number(key));
            return dom.h("div", {class: "sciart-line"}, dom.labelled("LoRAs are joined", select, "sciart-grow"),
                ...numbers);
        }

        number(key) {
            const [text, usual, limits, title] = NUMBERS[key];
            const input = dom.h("input", {type: "number", ...limits, value: this.given()[key], placeholder: usual, title,
                "data-field": `combining.${key}`,
                oninput: () => this.set(key, input.value === "" ? undefined : Number(input.value))});
            return dom.labelled(text, input, "sciart-small");
        }

        given() {
            return recipes.isObject(this.panel.recipe.combining) ? this.panel.recipe.combining : {};
        }

        choose(method) {
            this.panel.edit((recipe) => recipe.combine = method === "linear" ? undefined : method);
        }

        set(key, value) {
            const combining = {...this.given(), [key]: value};
            if (value === undefined) delete combining[key];
            this.panel.recipe.combining = Object.keys(combining).length ? combining : undefined;
            this.panel.write();
        }
    };
})();
