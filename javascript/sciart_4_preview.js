/* The plan that Python compiles as the recipe is edited, and what it has against the recipe. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const recipes = sciart.recipes ||= {};

    const PREVIEW_DELAY = 200;

    /** Asks nothing until `seen` is set. */
    sciart.Preview = class {
        constructor(panel) {
            this.panel = panel;
            this.seen = false;
            this.error = dom.h("div", {class: "sciart-error", role: "alert", id: panel.id("error")});
            this.notes = dom.h("ul", {class: "sciart-notes"});
        }

        showSoon() {
            clearTimeout(this.soon);
            if (this.seen) this.soon = setTimeout(() => this.show(), PREVIEW_DELAY);
        }

        async show() {
            const {recipe, bridge} = this.panel;
            if (recipe && recipes.isEmpty(recipe)) {
                bridge.drop("preview");
                this.panel.curves.setPlan("", null);
                this.notes.replaceChildren();
                return this.showError(recipe.enabled === false ? {} : {error: "Add a LoRA or use a preset."});
            }
            const text = this.text();
            const answer = await bridge.ask("preview", {recipe: text, ...this.panel.steps()});
            if (!answer || text !== this.text()) return; // a newer one is on its way
            this.panel.curves.setPlan(text, answer.plan || null);
            this.notes.replaceChildren(...(answer.notes || []).map((note) => dom.h("li", {}, note)));
            this.showError(answer);
            // another checkpoint is loaded than the cards were written for
            if (answer.model !== undefined && answer.model !== this.panel.cards.model) this.panel.loadChoices(false);
        }

        /** What is switched off is checked and drawn as well. */
        text() {
            const {recipe} = this.panel;
            if (!recipe || recipe.enabled !== false) return this.panel.text;
            const {enabled, ...rest} = recipes.withoutDefaults(recipe);
            return JSON.stringify(rest);
        }

        showError(answer) {
            this.error.textContent = answer.error || "";
            for (const input of this.panel.root.querySelectorAll("[aria-errormessage]")) {
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
            const row = index === undefined ? null : this.panel.rows.querySelector(`[data-index="${index}"]`);
            const part = rest === "role" ? "name" : rest;
            const inputs = row ? [...row.querySelectorAll("[data-field]")] : [];
            return inputs.find(({dataset}) => part === dataset.field || part.startsWith(dataset.field + ".") ||
                part.startsWith(dataset.field + "[")) || this.panel.json.field;
        }
    };
})();
