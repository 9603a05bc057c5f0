/* Puts a panel into each tab once the page is there, and holds what the page calls.
   The number in a file's name is its layer; a file uses its own layer and those below it:
   1 the recipe, without the page; 2 elements, the host's page, asking Python; 3 the plot; 4 the parts of the panel, and
   the tab; 5 the panel; 6 this.
   The files only add to `window.sciart`, so the order in which they are loaded does not matter.
   From the host: gradioApp, onUiLoaded. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const panels = {};

    Object.assign(sciart, {
        question: (tab) => panels[tab] ? panels[tab].bridge.question() : ["{}"],
        answered: (tab, text) => panels[tab] && panels[tab].bridge.answered(text),
        recipeChanged: (tab, text) => panels[tab] && panels[tab].changed(text),
    });

    onUiLoaded(function() {
        for (const root of gradioApp().querySelectorAll(".sciart-panel")) {
            panels[root.dataset.tab] = new sciart.Panel(root.dataset.tab, root);
        }
    });
})();
