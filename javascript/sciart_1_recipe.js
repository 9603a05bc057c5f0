/* The recipe and its text, without the page: reading, writing, the short texts of schedules. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const recipes = sciart.recipes ||= {};

    const RECIPE_KEYS = ["enabled", "preset", "roles", "loras", "combine", "combining", "compose", "composition",
        "guidance"];
    const LORA_KEYS = ["name", "role", "weight", "schedule", "curve", "subject", "trigger", "region", "te_weight", "blocks",
        "apply_to", "negative", "hires"];
    const LORA_DEFAULTS = {curve: "linear", apply_to: "both"};

    function isObject(value) {
        return value !== null && typeof value === "object" && !Array.isArray(value);
    }

    /** The recipe of a text, or null where it has none that rows can be drawn for: Python then says why. */
    function read(text) {
        if (!text.trim()) return {enabled: false, loras: []};
        let recipe;
        try {
            recipe = JSON.parse(text);
        } catch (error) {
            return null;
        }
        if (recipe === null) return {enabled: false, loras: []};
        if (!isObject(recipe)) return null;
        recipe = {...recipe, loras: recipe.loras === undefined ? [] : recipe.loras};
        return Array.isArray(recipe.loras) && recipe.loras.every(isObject) ? recipe : null;
    }

    function ordered(object, keys) {
        const known = keys.filter((key) => object[key] !== undefined).map((key) => [key, object[key]]);
        const others = Object.entries(object).filter(([key]) => !keys.includes(key));
        return Object.fromEntries([...known, ...others]);
    }

    /** The recipe without what is a default anyway. */
    function withoutDefaults(recipe) {
        const {enabled, loras, combine, compose, ...rest} = recipe;
        const kept = {...rest};
        if (combine !== "linear") kept.combine = combine;
        if (compose !== "merge") kept.compose = compose;
        if (enabled !== undefined && enabled !== true) kept.enabled = enabled;
        if (loras.length) kept.loras = loras.map(loraWithoutDefaults);
        return ordered(kept, RECIPE_KEYS);
    }

    function loraWithoutDefaults(lora) {
        const kept = Object.entries(lora).filter(([key, value]) => value !== undefined && value !== null &&
            value !== LORA_DEFAULTS[key] && !(isObject(value) && !Object.keys(value).length));
        return ordered(Object.fromEntries(kept), LORA_KEYS);
    }

    function isEmpty(recipe) {
        return Object.keys(withoutDefaults(recipe)).every((key) => key === "enabled");
    }

    function text(recipe, indent) {
        if (recipe.enabled === false && isEmpty(recipe)) return "";
        return JSON.stringify(withoutDefaults(recipe), null, indent);
    }

    /** Points as the short text `0.2@0, 0.65@0.5`; what is a text already stays as it was typed. */
    function scheduleText(schedule) {
        if (!Array.isArray(schedule)) return schedule == null ? "" : String(schedule);
        return schedule.map((point) => `${point[1]}@${point[0]}`).join(", ");
    }

    function largestWeight(schedule) {
        const shape = sciart.schedules.shapeOf({schedule});
        return shape && sciart.schedules.largest(shape) || 1;
    }

    /** The weight or schedule of a part of an entry: of its hires pass, of its negative prompt. */
    function partText(part) {
        if (!isObject(part)) return "";
        return part.schedule != null ? scheduleText(part.schedule) : part.weight == null ? "" : String(part.weight);
    }

    /** The part with the typed weight or schedule; what else it had stays. */
    function partFromText(text, before) {
        const {weight, schedule, ...others} = isObject(before) ? before : {};
        if (!text.trim()) return others;
        const number = sciart.texts.numberIn(text);
        return isFinite(number) ? {weight: number, ...others} : {schedule: text.trim(), ...others};
    }

    const GROUPS = ["in", "mid", "out"];

    /** Block weights that are not factors of in, mid and out, which have fields of their own: a list, or JSON. */
    function blocksText(blocks) {
        if (!isObject(blocks)) return Array.isArray(blocks) ? blocks.join(",") : blocks || "";
        const others = Object.entries(blocks).filter(([key]) => !GROUPS.includes(key));
        return others.length ? JSON.stringify(Object.fromEntries(others)) : "";
    }

    /** The typed block weights; JSON joins the factors of in, mid and out. What is no JSON Python refuses. */
    function blocksFromText(text, before) {
        const groups = Object.entries(isObject(before) ? before : {}).filter(([key]) => GROUPS.includes(key));
        try {
            const typed = text.trim() ? JSON.parse(text) : {};
            if (isObject(typed)) return {...Object.fromEntries(groups), ...typed};
        } catch (error) {
            // a list, or something on its way to be JSON
        }
        return text.trim();
    }

    Object.assign(recipes, {isObject, read, withoutDefaults, loraWithoutDefaults, isEmpty, text, scheduleText,
        largestWeight, partText, partFromText, blocksText, blocksFromText});
})();
