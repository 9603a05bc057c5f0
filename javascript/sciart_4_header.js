/* The title of the host's accordion around a panel: a tick that enables it, as the host's own accordions have it, and
   keys that open it. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const host = sciart.host ||= {};

    sciart.Header = class {
        constructor(panel) {
            this.panel = panel;
            this.bar = host.find(`#sciart_${panel.tab} .label-wrap`);
            this.tick = dom.h("input", {type: "checkbox", class: "sciart-tick", id: panel.id("enabled"),
                title: "Enable SciArt", "aria-label": "Enable SciArt",
                onclick: (event) => event.stopPropagation(), oninput: () => panel.enable(this.tick.checked)});
            this.bar.querySelector("span").prepend(this.tick);
            const arrow = this.bar.querySelector(".icon");
            arrow.setAttribute("tabindex", "0");
            arrow.setAttribute("role", "button");
            arrow.setAttribute("aria-label", dom.t("Open or close the SciArt panel"));
            arrow.addEventListener("keydown", (event) => {
                if (event.key !== "Enter" && event.key !== " ") return;
                event.preventDefault();
                this.bar.click();
            });
            this.bar.addEventListener("click", () => setTimeout(() => this.bringIntoView()));
        }

        isOpen() {
            return this.bar.classList.contains("open");
        }

        open() {
            if (!this.isOpen()) this.bar.click();
        }

        /** A panel that was just opened is often below the window's edge: what a first picture needs comes into view. */
        bringIntoView() {
            if (this.isOpen()) this.panel.presets.node.scrollIntoView({block: "nearest"});
        }
    };
})();
