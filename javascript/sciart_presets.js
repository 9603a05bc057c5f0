/* Choosing, using, saving and deleting presets, and binding their roles to LoRAs. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const host = sciart.host ||= {};
    const recipes = sciart.recipes ||= {};

    /** The part of a panel above its rows, and its fold for saving. */
    sciart.Presets = class {
        constructor(panel) {
            this.panel = panel;
            this.choices = {loras: [], presets: [], bindings: {}, suggestions: {}};
            this.cards = new sciart.PresetCards(panel, () => this.showPreset());
            this.node = this.draw();
            this.saveNode = this.drawSaving();
        }

        draw() {
            this.use = dom.button("Use preset", () => this.usePreset(), {title: "Fills the rows below"});
            this.useAll = dom.button("Prompt & settings too", () => this.pastePreset(),
                {title: "Fills the rows, and the prompt, size, steps, sampler and seed of this page"});
            this.description = dom.h("p", {class: "sciart-description"});
            this.prompt = dom.h("select", {});
            this.roles = dom.h("div", {class: "sciart-line sciart-roles"});
            return dom.h("div", {class: "sciart-presets"}, this.cards.node, this.description, this.roles,
                dom.h("div", {class: "sciart-line"}, dom.labelled("Prompt of the preset", this.prompt, "sciart-grow"),
                    this.use, this.useAll));
        }

        drawSaving() {
            const field = (attributes) => dom.h("input", {type: "text", autocomplete: "off", ...attributes});
            this.saving = {
                name: field({placeholder: "my-preset", "data-saving": "name"}), title: field({"data-saving": "title"}),
                description: field({"data-saving": "description"}),
                settings: dom.h("input", {type: "checkbox", checked: true}),
                picture: dom.h("input", {type: "checkbox", checked: true}),
            };
            this.unsave = dom.button("Delete the chosen preset", () => this.deletePreset(), {disabled: true});
            return dom.h("details", {class: "sciart-fold"}, dom.h("summary", {}, "Save as preset"),
                dom.h("div", {class: "sciart-line"}, dom.labelled("Name", this.saving.name, "sciart-medium"),
                    dom.labelled("Title", this.saving.title, "sciart-medium"),
                    dom.labelled("Description", this.saving.description, "sciart-grow")),
                dom.h("label", {class: "sciart-check"}, this.saving.settings,
                    "with the prompt and settings of this page"),
                dom.h("label", {class: "sciart-check"}, this.saving.picture,
                    "with the picture made last as its thumbnail"),
                dom.h("div", {class: "sciart-line sciart-bar"},
                    dom.button("Save preset", () => this.savePreset()), this.unsave));
        }

        /** A select of LoRAs for one role, likely ones first. */
        drawBinding(role) {
            const names = this.choices.loras.map((lora) => lora.name);
            const {cards} = this.panel;
            const fitting = (name) => Number(cards.unfit(name));
            const likely = [...this.choices.suggestions[role] || []].sort((a, b) => fitting(a) - fitting(b));
            const bound = this.choices.bindings[role];
            const option = (name) => [name, cards.unfit(name) ? dom.t("{0} (does not fit)", name) : name];
            const group = (label, values) => values.length ?
                dom.h("optgroup", {label}, ...dom.options(values.map(option), bound)) : null;
            const known = bound === undefined || names.includes(bound) || likely.includes(bound);
            const select = dom.h("select",
                {"data-field": "name", "data-role": role, onchange: () => this.bind(role, select.value)},
                dom.h("option", {value: ""}, "choose a LoRA"), group("bound, but not found", known ? [] : [bound]),
                group("likely", likely), group("all", names.filter((name) => !likely.includes(name))));
            select.classList.toggle("sciart-wanted", !bound);
            return select;
        }

        chosen() {
            return this.choices.presets.find((preset) => preset.name === this.cards.value);
        }

        /** What there is to choose from now; the chosen preset stays. */
        showChoices(choices) {
            const chosen = this.cards.value;
            const same = JSON.stringify(choices.presets) === JSON.stringify(this.choices.presets);
            this.choices = choices;
            if (!same) this.cards.show(choices.presets, chosen);
            this.showPreset();
        }

        showPreset() {
            const preset = this.chosen();
            const all = preset ? [preset.txt2img?.prompt, ...(preset.prompts || [])] : [];
            const prompts = [...new Set(all.filter(Boolean))];
            this.use.disabled = this.useAll.disabled = !preset;
            this.unsave.disabled = !preset || preset.builtin;
            this.description.textContent = this.description.title = preset ? preset.description : "";
            const prompt = prompts.includes(this.prompt.value) ? this.prompt.value : prompts[0];
            this.prompt.replaceChildren(...dom.options(prompts.map((text) => [text, text]), prompt));
            this.prompt.disabled = prompts.length < 2;
            this.roles.replaceChildren(...(preset?.roles || []).map((role) => this.drawRole(role)));
        }

        /** One role of the preset: which LoRA plays it, and what that is. */
        drawRole(role) {
            const field = dom.labelled(dom.t("LoRA for “{0}”", role), this.drawBinding(role), "sciart-medium");
            const card = dom.h("div", {class: "sciart-card"});
            this.panel.cards.show(card, this.choices.bindings[role], true);
            field.append(card);
            return field;
        }

        /** The chosen preset's recipe, its roles replaced by the LoRAs bound to them. */
        recipe() {
            const recipe = structuredClone(this.chosen().recipe);
            return {...recipe, enabled: true, loras: (recipe.loras || []).map((lora) => this.bound(lora))};
        }

        bound(lora) {
            const {role, ...others} = lora;
            const name = role === undefined ? undefined : this.choices.bindings[role];
            return name ? {name, ...others} : lora;
        }

        usePreset() {
            this.panel.replace(this.recipe());
        }

        pastePreset() {
            const {tab} = this.panel;
            const prompt = this.prompt.value || undefined;
            const text = host.infotext(tab, this.chosen().txt2img || {}, prompt, recipes.text(this.recipe()));
            try {
                host.pasteInfotext(tab, text);
            } catch (error) {
                this.panel.say(error.message);
            }
        }

        async bind(role, name) {
            if (!await this.panel.change("bind", {bindings: {[role]: name}}) || !this.panel.recipe || !name) return;
            if (!this.panel.recipe.loras.some((lora) => lora.role === role)) return;
            this.panel.edit((recipe) => {
                recipe.loras = recipe.loras.map((lora) => lora.role === role ? this.bound(lora) : lora);
            });
        }

        async savePreset() {
            const {name, title, description, settings, picture} = this.saving;
            if (!this.panel.recipe) return this.panel.say("recipe: not valid JSON; nothing to save");
            const {enabled, ...recipe} = recipes.withoutDefaults(this.panel.recipe);
            const preset = {title: title.value.trim() || name.value.trim(), description: description.value.trim(),
                recipe, txt2img: settings.checked ? host.currentSettings(this.panel.tab) : {}};
            const thumbnail = picture.checked ? host.lastPicture(this.panel.tab) : null;
            if (!await this.panel.change("save_preset", {name: name.value.trim(), preset, thumbnail})) return;
            this.cards.choose(name.value.trim());
            this.showPreset();
            this.panel.say(dom.t("Saved as “{0}”", name.value.trim()));
        }

        async deletePreset() {
            const name = this.cards.value;
            if (!confirm(dom.t("Delete the preset “{0}”?", name))) return;
            if (await this.panel.change("delete_preset", {name})) this.panel.say(dom.t("Deleted “{0}”", name));
        }
    };
})();
