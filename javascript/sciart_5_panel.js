/* The panel of one tab. Its widgets only edit the recipe, one JSON text in a hidden textbox: the script's argument. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const host = sciart.host ||= {};
    const recipes = sciart.recipes ||= {};

    sciart.Panel = class {
        constructor(tab, root) {
            this.tab = tab;
            this.root = root;
            this.bridge = new sciart.Bridge(tab);
            this.presets = new sciart.Presets(this);
            this.compose = new sciart.Compose(this);
            this.combine = new sciart.Combine(this);
            this.preview = new sciart.Preview(this);
            this.curves = new sciart.Curves(this);
            this.mixing = new sciart.Triangle(this);
            this.drawing = new sciart.Drawing(this);
            this.cards = new sciart.Cards();
            this.json = new sciart.Json(this);
            this.field = host.find(`#sciart_${tab}_recipe textarea`);
            this.history = new sciart.History(this.field.value, (text) => this.restore(text));
            this.chosen = 0;
            this.rowWidgets = [];
            this.palette = (root.dataset.palette || "currentColor").split(" ");
            this.header = new sciart.Header(this);
            this.draw();
            this.take(this.field.value);
            if (!this.field.value && root.dataset.start) this.start(root.dataset.start);
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
            this.names = dom.h("datalist", {id: this.id("names")});
            this.note = dom.h("div", {class: "sciart-note", role: "status"});
            this.rows = dom.h("div", {class: "sciart-rows"});
            this.rows.addEventListener("focusin", (event) => {
                const row = event.target.closest("[data-index]");
                if (row) this.choose(Number(row.dataset.index));
            });
            this.mixture = dom.h("div", {class: "sciart-mixture"}, this.curves.node, this.mixing.node);
            this.root.setAttribute("tabindex", "-1");
            this.root.replaceChildren(this.names, this.presets.node, this.rows, this.drawButtons(), this.mixture,
                this.compose.node, this.combine.node, dom.h("div", {}, this.json.node, this.presets.saveNode));
            this.history.watch(this.root);
        }

        drawButtons() {
            return dom.h("div", {class: "sciart-line sciart-bar"},
                dom.button("+ Add LoRA", () => this.add()),
                dom.button("⟳", () => this.loadChoices(true), {class: "sciart-button sciart-tool",
                    title: "Look for LoRA files again", "aria-label": "Refresh the list of LoRAs"}),
                ...this.history.drawButtons(),
                // has its room while empty, so that a message moves nothing
                dom.h("div", {class: "sciart-messages"}, this.preview.error, this.note, this.preview.notes));
        }

        drawRows() {
            const loras = this.recipe ? this.recipe.loras : [];
            this.rowWidgets = loras.map((lora, index) => new sciart.Row(this, lora, index));
            this.rows.replaceChildren(...this.rowWidgets.map((row) => row.node));
            if (this.recipe && this.recipe.preset !== undefined) this.rows.prepend(this.drawStart());
            this.compose.show();
            this.combine.show();
            this.header.tick.checked = this.recipe ? this.recipe.enabled !== false : true;
            this.choose(Math.max(Math.min(this.chosen, loras.length - 1), 0));
        }

        /** The LoRA whose points can be moved in the plot. */
        choose(index) {
            const again = index === this.chosen;
            this.chosen = index;
            this.rowWidgets.forEach((row) => row.node.classList.toggle("sciart-chosen", row.index === index));
            if (!again) this.curves.show();
        }

        /** Tells of a preset that the recipe itself names, as API users write it. */
        drawStart() {
            return dom.h("div", {class: "sciart-line sciart-bar"},
                dom.h("span", {class: "sciart-description"},
                    dom.t("Starts from the preset “{0}”; what is given here counts first.", this.recipe.preset)),
                dom.button("✕", () => this.edit((recipe) => delete recipe.preset),
                    {class: "sciart-button sciart-tool", "aria-label": "Do not start from this preset"}));
        }

        // the text

        /** Shows the recipe of a text that came from outside: a paste, a saved default, another tab. */
        take(text) {
            this.text = text;
            this.history.record(text);
            this.history.close();
            this.recipe = recipes.read(text);
            this.drawRows();
            this.json.show(text);
            this.showMixture();
            if (!this.recipe) this.curves.show();
            this.preview.showSoon();
        }

        /** What the settings have an empty panel begin with. */
        start(text) {
            this.take(text);
            this.hand(text);
        }

        /** A text of the history, in place of the one that is shown. */
        restore(text) {
            this.take(text);
            this.hand(text);
            if (!this.root.contains(document.activeElement)) this.root.focus({preventScroll: true});
        }

        /** Rows, compose and combine show the recipe as it is; while the text cannot be read, the last one that could. */
        showMixture() {
            for (const node of [this.rows, this.mixture, this.compose.node, this.combine.node]) {
                node.inert = !this.recipe;
                node.classList.toggle("sciart-muted", !this.recipe);
            }
            this.curves.node.classList.toggle("sciart-muted", this.recipe?.enabled === false);
            if (!this.recipe) return;
            this.curves.show();
            this.mixing.show();
        }

        /** The text as it is being typed: also one that cannot be read yet, so that it is never taken for another. */
        takeJson(text) {
            this.recipe = recipes.read(text);
            if (this.recipe) this.drawRows();
            this.hand(this.recipe ? recipes.text(this.recipe) : text);
        }

        /** Writes the edited recipe. */
        write() {
            this.json.show(this.text);
            this.hand(recipes.text(this.recipe));
        }

        hand(text) {
            this.text = text;
            this.history.record(text);
            host.setValue(this.field, text);
            this.showMixture();
            this.preview.showSoon();
        }

        /** Hands over what was edited outside of the rows, which follow. */
        edited() {
            this.rowWidgets.forEach((row) => row.refresh());
            this.write();
        }

        steps() {
            return host.stepsOf(this.tab);
        }

        /** The textbox has changed; while a point is dragged gradio tells of texts that it does not hold any more. */
        changed(text) {
            if (text !== this.text && (text || "") === this.field.value) this.take(text || "");
        }

        // edits

        replace(recipe) {
            this.recipe = recipe;
            this.drawRows();
            this.write();
        }

        edit(change) {
            const recipe = this.recipe || {loras: []};
            change(recipe);
            this.history.close();
            this.replace(recipe);
            this.history.close();
        }

        enable(on) {
            if (this.recipe) this.edit((recipe) => recipe.enabled = on);
            else this.header.tick.checked = true;
            if (on) this.header.open();
        }

        add() {
            this.edit((recipe) => {
                if (recipes.isEmpty(recipe)) recipe.enabled = true;
                recipe.loras.push({weight: 1});
            });
            this.choose(this.recipe.loras.length - 1);
            this.rows.lastElementChild.querySelector("input").focus();
        }

        remove(index) {
            this.drawing.removed(index);
            this.edit((recipe) => recipe.loras.splice(index, 1));
            const left = this.rows.querySelectorAll("[data-index]");
            const next = left[Math.min(index, left.length - 1)];
            (next ? next.querySelector(".sciart-tool") : this.root.querySelector(".sciart-bar button")).focus();
        }

        // asking

        async loadChoices(refresh) {
            await this.change("choices", {refresh: Boolean(refresh)});
            // other rows have nothing that changes, and one of them may just be typed into
            if (this.recipe && this.recipe.loras.some((lora) => lora.role !== undefined)) this.drawRows();
            if (refresh) this.preview.showSoon();
        }

        /** Asks for a change and shows the choices after it, or why it could not be; true when it was done. */
        async change(action, fields) {
            const answer = await this.bridge.ask(action, fields);
            this.say(answer.error || "", answer.field);
            if (answer.choices) this.showChoices(answer.choices);
            return !answer.error;
        }

        showChoices(choices) {
            this.cards.take(choices);
            this.presets.showChoices(choices);
            this.showNames();
            this.rowWidgets.forEach((row) => row.showCard());
            if (this.cards.unread) this.readCards();
        }

        showNames() {
            this.names.replaceChildren(...this.presets.choices.loras.map((lora) => dom.h("option", {value: lora.name},
                [lora.kind, lora.rank && `rank ${lora.rank}`].filter(Boolean).join(", "))));
        }

        /** Of many files Python reads some at a time: asks until all have been read. */
        async readCards() {
            if (this.reading) return;
            this.reading = true;
            while (this.cards.unread) {
                const {loras, error} = await this.bridge.ask("cards", {});
                if (!loras) {
                    this.say(error);
                    break;
                }
                this.presets.choices.loras = loras;
                this.cards.take(this.presets.choices);
                this.rowWidgets.forEach((row) => row.showCard());
            }
            this.reading = false;
            this.showNames();
            this.presets.roles.refresh();
        }

        say(message, field) {
            this.note.textContent = message;
            for (const input of this.root.querySelectorAll("[data-saving]")) {
                input.toggleAttribute("aria-invalid", input.dataset.saving === field);
            }
        }

        /** Asks nothing until the panel is looked at; draws anew when the number of steps changes. */
        watch() {
            new IntersectionObserver((entries, observer) => {
                if (!entries.some((entry) => entry.isIntersecting)) return;
                observer.disconnect();
                this.preview.seen = true;
                this.loadChoices(false).then(() => this.header.bringIntoView());
                this.preview.showSoon();
            }).observe(this.root);
            const steps = [`#${this.tab}_steps`, "#txt2img_hires_steps", "#txt2img_hr"].join(", ");
            gradioApp().addEventListener("input", (event) => {
                if (!(event.target instanceof Element && event.target.closest(steps))) return;
                this.curves.show();
                this.preview.showSoon();
            });
        }
    };
})();
