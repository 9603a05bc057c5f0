/* The roles of the chosen preset: which LoRA plays each, by the user's word or by a suggestion that is not bound yet. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    sciart.Roles = class {
        /** presets: whose `choices` say what is bound and what is suggested. */
        constructor(panel, presets) {
            this.panel = panel;
            this.presets = presets;
            this.shown = [];
            this.declined = new Set();  // roles that the user has emptied
            this.node = dom.h("div", {class: "sciart-line sciart-roles"});
        }

        show(roles) {
            this.shown = roles;
            const suggested = this.suggest(roles);
            this.node.replaceChildren(...roles.map((role) => this.draw(role, suggested.get(role))));
        }

        /** Tells what is new of the files; not while somebody is choosing one. */
        refresh() {
            if (!this.node.contains(document.activeElement)) this.show(this.shown);
        }

        /** One role: which LoRA plays it, and what that is. */
        draw(role, suggested) {
            const text = suggested ? dom.t("“{0}”: suggested", role) : dom.t("LoRA for “{0}”", role);
            const field = dom.labelled(text, this.drawBinding(role, suggested), "sciart-medium");
            field.classList.toggle("sciart-suggested", suggested !== undefined);
            const card = dom.h("div", {class: "sciart-card"});
            this.panel.cards.show(card, this.presets.choices.bindings[role] ?? suggested, true);
            field.append(card);
            return field;
        }

        /** A select of LoRAs for one role, likely ones first; `suggested` is shown where none is bound. */
        drawBinding(role, suggested) {
            const {choices} = this.presets, {cards} = this.panel;
            const names = choices.loras.map((lora) => lora.name);
            const fitting = (name) => Number(cards.unfit(name));
            const likely = [...choices.suggestions[role] || []].sort((a, b) => fitting(a) - fitting(b));
            const bound = choices.bindings[role];
            const option = (name) => [name, cards.unfit(name) ? dom.t("{0} (does not fit)", name) : name];
            const group = (label, values) => values.length ?
                dom.h("optgroup", {label}, ...dom.options(values.map(option), bound ?? suggested)) : null;
            const known = bound === undefined || names.includes(bound) || likely.includes(bound);
            const select = dom.h("select", {"data-field": "name", "data-role": role,
                "data-suggested": suggested !== undefined, onchange: () => this.choose(role, select),
                title: suggested && "Suggested by its name; kept for this role when you use the preset"},
            dom.h("option", {value: ""}, "choose a LoRA"), group("bound, but not found", known ? [] : [bound]),
            group("likely", likely), group("all", names.filter((name) => !likely.includes(name))));
            select.classList.toggle("sciart-wanted", !bound && !suggested);
            return select;
        }

        /** The best LoRA that fits, for each role that has none; no LoRA twice. */
        suggest(roles) {
            const {bindings, suggestions} = this.presets.choices;
            const used = new Set(roles.map((role) => bindings[role]));
            const free = (role) => (suggestions[role] || []).filter((name) => !used.has(name) && !this.panel.cards.unfit(name));
            const open = roles.filter((role) => !bindings[role] && !this.declined.has(role));
            const found = new Map();
            // those with the least to choose from come first, so that no other role takes their only one
            for (const role of open.sort((a, b) => free(a).length - free(b).length)) {
                const [best] = free(role);
                if (best === undefined) continue;
                found.set(role, best);
                used.add(best);
            }
            return found;
        }

        choose(role, select) {
            select.removeAttribute("data-suggested");
            this.declined[select.value ? "delete" : "add"](role);
            this.binding = this.presets.bind(role, select.value);
        }

        /** Binds what is suggested, as it is shown; false where that could not be. */
        async take() {
            await this.binding;
            const shown = [...this.node.querySelectorAll("[data-suggested]")].map(({dataset, value}) => [dataset.role, value]);
            // not over what was bound meanwhile, in another tab
            return !shown.length || this.panel.change("bind", {bindings: Object.fromEntries(shown), only_unbound: true});
        }
    };
})();
