/* What is known of LoRA files, told in a line: kind, rank, size, base model, and whether they fit the loaded one. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    function size(bytes) {
        return bytes < 2 ** 20 ? `${Math.max(Math.round(bytes / 2 ** 10), 1)} KB` : `${(bytes / 2 ** 20).toFixed(1)} MB`;
    }

    sciart.Cards = class {
        constructor() {
            this.files = new Map();
            this.model = undefined;
        }

        take(choices) {
            this.files = new Map(choices.loras.map((file) => [file.name, file]));
            this.model = choices.model;
        }

        /** Whether the file is known not to work with the loaded model. */
        unfit(name) {
            const file = this.files.get(name);
            return Boolean(file && (file.error || file.fits === false));
        }

        /** Fills a line with what is known of the file called `name`. */
        show(node, name) {
            const file = this.files.get(name);
            node.title = file ? file.error || file.fit_note || file.file || "" : "";
            node.replaceChildren(...(file ? this.draw(file) : []));
        }

        draw(file) {
            const part = (...texts) => dom.h("span", {}, ...texts);
            if (file.error) return [dom.h("span", {class: "sciart-unfit"}, "cannot be mixed"), part(file.error)];
            const known = [file.kind && part(file.kind), file.rank && part("rank", ` ${file.rank}`),
                file.bytes && part(size(file.bytes)), file.base && file.base !== "unknown" && part("for", ` ${file.base}`)];
            const fits = file.fits === true ? dom.h("span", {class: "sciart-fit"}, file.fit_note ? "fits in part" : "fits")
                : file.fits === false ? dom.h("span", {class: "sciart-unfit"}, "does not fit the loaded model") : null;
            return [fits, ...known].filter(Boolean);
        }
    };
})();
