/* The recipe as JSON, to read, type, copy and paste. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const recipes = sciart.recipes ||= {};

    sciart.Json = class {
        constructor(panel) {
            this.panel = panel;
            this.field = dom.h("textarea", {rows: 8, spellcheck: "false", "aria-label": "Recipe as JSON",
                oninput: () => panel.takeJson(this.field.value)});
            const copy = dom.button("Copy", async() => {
                await dom.copyText(this.field);
                copy.textContent = "Copied";
                setTimeout(() => copy.textContent = "Copy", 1000);
            });
            const paste = dom.button("Paste", () => this.paste(), {title: "Takes the recipe from the clipboard"});
            this.node = dom.h("details", {class: "sciart-fold"}, dom.h("summary", {}, "Recipe (JSON)"), this.field,
                dom.h("div", {class: "sciart-line sciart-bar"}, copy, paste));
        }

        /** The panel's recipe; a text that is none as it is, where it is seen. */
        show(text) {
            const {recipe} = this.panel;
            this.field.value = recipe ? recipes.text(recipe, 2) : text;
            if (!recipe) this.node.open = true;
        }

        /** Takes what is in the clipboard; where the page may not read it, the field waits for the user to paste. */
        async paste() {
            this.field.focus();
            this.field.select();
            const text = await dom.pastedText();
            if (text === null) return this.panel.say("The browser does not hand over the clipboard: press Ctrl+V");
            this.panel.say("");
            this.field.value = text;
            this.panel.takeJson(text);
            this.panel.history.close();
        }
    };
})();
