/* Making the panel's elements. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    const READ = ["title", "placeholder", "aria-label", "label"];
    let fields = 0;

    /** A text in the page's language, with values in the places {0}, {1}, …
        The host translates whole texts of the page itself, but no attributes within what is added to it. */
    function t(text, ...values) {
        const translated = (window.localization || {})[text] ?? text;
        return values.length ? translated.replace(/\{(\d+)\}/g, (_, index) => values[index]) : translated;
    }

    function h(tag, attributes, ...children) {
        const node = document.createElement(tag);
        for (const [key, value] of Object.entries(attributes || {})) {
            if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
            else if (value === true) node.setAttribute(key, "");
            else if (value !== false && value != null) node.setAttribute(key, READ.includes(key) ? t(value) : value);
        }
        node.append(...children.filter((child) => child != null));
        return node;
    }

    function labelled(text, control, className) {
        control.id = control.id || `sciart_field_${++fields}`;
        return h("div", {class: `sciart-field ${className || ""}`},
            h("label", {class: "sciart-label", for: control.id}, text), control);
    }

    function button(text, onclick, attributes) {
        return h("button", {type: "button", class: "sciart-button", onclick, ...attributes}, text);
    }

    function options(values, chosen) {
        return values.map(([value, text]) => h("option", {value, selected: value === chosen}, text));
    }

    async function copyText(field) {
        if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(field.value);
        field.select();
        document.execCommand("copy");
    }

    /** What is in the clipboard; null where the browser does not let the page read it. */
    async function pastedText() {
        if (!navigator.clipboard?.readText || !window.isSecureContext) return null;
        return navigator.clipboard.readText().catch(() => null);
    }

    /** A finger that is put on a handle drags it and does not scroll the page; not all browsers heed the style there. */
    function keepTouches(node) {
        node.addEventListener("touchstart", (event) => {
            if (event.target.closest(".sciart-handle")) event.preventDefault();
        }, {passive: false});
    }

    Object.assign(dom, {t, h, labelled, button, options, copyText, pastedText, keepTouches});
})();
