/* Choosing, using, saving and deleting presets. */
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
            this.choices = {loras: [], presets: [], bindings: {}, bindings_error: "", suggestions: {}};
            this.cards = new sciart.PresetCards(panel, () => this.showPreset());
            this.roles = new sciart.Roles(panel, this);
            this.node = this.draw();
            this.saveNode = this.drawSaving();
        }

        draw() {
            this.use = dom.button("Use preset", () => this.usePreset(), {title: "Fills the rows below"});
            this.useAll = dom.button("Prompt & settings too", () => this.pastePreset(),
                {title: "Fills the rows, and the prompt, size, steps, sampler and seed of this page"});
            this.stages = dom.button("Its stages…", () => sciart.openPipelines(), {hidden: true,
                title: "Pose, faces, light img2img and upscale run in the tab SciArt → Pipeline; here only txt2img"});
            this.description = dom.h("p", {class: "sciart-description"});
            this.prompt = dom.h("select", {});
            this.wrong = dom.h("p", {class: "sciart-unfit sciart-wrong-roles", role: "alert", hidden: true});
            return dom.h("div", {class: "sciart-presets"}, this.cards.node, this.description, this.wrong, this.roles.node,
                dom.h("div", {class: "sciart-line"}, dom.labelled("Prompt of the preset", this.prompt, "sciart-grow"),
                    this.use, this.useAll, this.stages));
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

        chosen() {
            return this.choices.presets.find((preset) => !preset.error && preset.name === this.cards.value);
        }

        /** What there is to choose from now; the chosen preset stays. */
        showChoices(choices) {
            const chosen = this.cards.value;
            const same = JSON.stringify(choices.presets) === JSON.stringify(this.choices.presets);
            this.choices = choices;
            if (!same) this.cards.show(choices.presets, chosen);
            this.wrong.textContent = choices.bindings_error;
            this.wrong.hidden = !choices.bindings_error;
            this.showPreset();
        }

        showPreset() {
            const preset = this.chosen();
            const all = preset ? [preset.txt2img?.prompt, ...(preset.prompts || [])] : [];
            const prompts = [...new Set(all.filter(Boolean))];
            this.use.disabled = this.useAll.disabled = !preset;
            this.stages.hidden = !preset?.pipeline;
            this.unsave.disabled = !preset || preset.builtin;
            this.description.textContent = this.description.title =
                preset ? [preset.thumbnail_error, preset.description].filter(Boolean).join(" · ") : "";
            const prompt = prompts.includes(this.prompt.value) ? this.prompt.value : prompts[0];
            this.prompt.replaceChildren(...dom.options(prompts.map((text) => [text, text]), prompt));
            this.prompt.disabled = prompts.length < 2;
            this.roles.show(preset?.roles || []);
        }

        /** The preset's recipe, its roles replaced by the LoRAs bound to them. */
        recipe(preset) {
            const recipe = structuredClone(preset.recipe);
            return {...recipe, enabled: true, loras: (recipe.loras || []).map((lora) => this.bound(lora))};
        }

        bound(lora) {
            const {role, ...others} = lora;
            const name = role === undefined ? undefined : this.choices.bindings[role];
            return name ? {name, ...others} : lora;
        }

        async usePreset() {
            const preset = this.chosen();
            if (await this.roles.take()) this.panel.replace(this.recipe(preset));
        }

        async pastePreset() {
            const {tab} = this.panel, preset = this.chosen();
            const prompt = this.prompt.value || undefined;
            if (!await this.roles.take()) return;
            const text = host.infotext(tab, preset.txt2img || {}, prompt, recipes.text(this.recipe(preset)));
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
