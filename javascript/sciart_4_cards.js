/* What is known of LoRA files, told in a line: kind, rank, size, base model, and whether they fit the loaded one. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    function size(bytes) {
        const kilobytes = bytes / 2 ** 10;
        return kilobytes < 1024 ? `${Math.max(Math.round(kilobytes), 1)} KB` : `${(kilobytes / 1024).toFixed(1)} MB`;
    }

    sciart.Cards = class {
        constructor() {
            this.files = new Map();
            this.model = undefined;
        }

        take(choices) {
            // a file is named by its own name in infotext and presets, whatever the host prefers
            this.files = new Map([...choices.loras.map((file) => [(file.file || "").replace(/\.[^.]*$/, ""), file]),
                ...choices.loras.map((file) => [file.name, file])]);
            this.model = choices.model;
        }

        /** Whether there are files of which only the name is known yet. */
        get unread() {
            return [...this.files.values()].some((file) => file.unread);
        }

        /** Whether the file is known not to work with the loaded model. */
        unfit(name) {
            const file = this.files.get(name);
            return Boolean(file && (file.error || file.fits === false));
        }

        /** Fills a line with what is known of the file called `name`; `brief`: where there is less room. */
        show(node, name, brief = false) {
            const file = this.files.get(name);
            node.title = file ? file.error || file.fit_note || file.file || "" : "";
            node.replaceChildren(...(file ? this.draw(file, brief) : []));
        }

        draw(file, brief) {
            const part = (...texts) => dom.h("span", {}, ...texts);
            if (file.error) return [dom.h("span", {class: "sciart-unfit"}, "cannot be mixed"), part(file.error)];
            const base = file.base === "unknown" ? undefined : file.base;
            const known = [file.kind && part(file.kind), file.rank && part(dom.t("rank {0}", file.rank)),
                !brief && file.bytes && part(size(file.bytes)), base && part(dom.t("for {0}", base))];
            const misfit = brief ? "does not fit" : "does not fit the loaded model";
            const fit = file.fit_note ? "fits in part" : "fits";
            const fits = file.fits === true ? dom.h("span", {class: "sciart-fit"}, fit)
                : file.fits === false ? dom.h("span", {class: "sciart-unfit"}, misfit) : null;
            return [fits, ...known].filter(Boolean);
        }
    };
})();
