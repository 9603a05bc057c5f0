/* The host's own page: reading its widgets, and setting them through its paste button.
   From the host: gradioApp, updateInput. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const host = sciart.host ||= {};

    const SETTING_LABELS = {CLIP_stop_at_last_layers: "Clip skip", sd_model_checkpoint: "Model hash",
        sd_vae: "VAE", eta_noise_seed_delta: "ENSD"};

    const THUMBNAIL = 144;  // pixels a side: twice what is shown

    function find(selector) {
        return gradioApp().querySelector(selector);
    }

    function setValue(field, value) {
        field.value = value;
        updateInput(field);
    }

    function numberOf(id) {
        const field = find(`#${id} input[type=number]`) || find(`#${id} input`);
        return field && field.value !== "" && isFinite(Number(field.value)) ? Number(field.value) : undefined;
    }

    function choiceOf(id) {
        const field = find(`#${id} input:checked`) || find(`#${id} input:not([type=radio])`);
        return field && field.value ? field.value : undefined;
    }

    function textOf(id) {
        const field = find(`#${id} textarea`);
        return field ? field.value : undefined;
    }

    function hiresIsOn(tab) {
        const tick = tab === "txt2img" && find("#txt2img_hr-visible-checkbox");
        return Boolean(tick && tick.checked);
    }

    function stepsOf(tab) {
        const steps = numberOf(`${tab}_steps`) || 20;
        return {steps, hires_steps: hiresIsOn(tab) ? numberOf("txt2img_hires_steps") || steps : 0};
    }

    /** The page's prompt and settings under the API's names; what the page lacks is left out. */
    function currentSettings(tab) {
        const settings = {
            prompt: textOf(`${tab}_prompt`), negative_prompt: textOf(`${tab}_neg_prompt`),
            seed: numberOf(`${tab}_seed`), steps: numberOf(`${tab}_steps`), cfg_scale: numberOf(`${tab}_cfg_scale`),
            width: numberOf(`${tab}_width`), height: numberOf(`${tab}_height`),
            sampler_name: choiceOf(`${tab}_sampling`), scheduler: choiceOf(`${tab}_scheduler`),
        };
        if (hiresIsOn(tab)) {
            Object.assign(settings, {
                enable_hr: true, hr_scale: numberOf("txt2img_hr_scale"), hr_upscaler: choiceOf("txt2img_hr_upscaler"),
                hr_second_pass_steps: numberOf("txt2img_hires_steps"),
                denoising_strength: numberOf("txt2img_denoising_strength"),
            });
        }
        return JSON.parse(JSON.stringify(settings));
    }

    /** The host's own quoting of an infotext value. */
    function quoted(value) {
        return /[,:\n]/.test(String(value)) ? JSON.stringify(value) : String(value);
    }

    /** A preset as the infotext of a picture made with it: the host's paste then sets everything. */
    function infotext(tab, settings, prompt, recipe) {
        const now = currentSettings(tab);
        // the host takes a last line with fewer than three values for a part of the prompt
        const s = {steps: now.steps, cfg_scale: now.cfg_scale, seed: now.seed, ...settings};
        const pairs = [["Steps", s.steps], ["Sampler", s.sampler_name], ["Schedule type", s.scheduler],
            ["CFG scale", s.cfg_scale], ["Seed", s.seed],
            ["Size", s.width && s.height ? `${s.width}x${s.height}` : undefined]];
        if (s.enable_hr && tab === "txt2img") {
            pairs.push(["Denoising strength", s.denoising_strength ?? 0.7], ["Hires upscale", s.hr_scale ?? 2],
                ["Hires steps", s.hr_second_pass_steps], ["Hires upscaler", s.hr_upscaler]);
        } else if (!s.enable_hr && tab === "img2img") {
            pairs.push(["Denoising strength", s.denoising_strength]);
        }
        for (const [key, label] of Object.entries(SETTING_LABELS)) pairs.push([label, s.override_settings?.[key]]);
        pairs.push(["SciArt", recipe]);
        const given = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
        const negative = s.negative_prompt ?? now.negative_prompt;
        return [prompt ?? s.prompt ?? now.prompt ?? "", ...(negative ? [`Negative prompt: ${negative}`] : []),
            given.map(([key, value]) => `${key}: ${quoted(value)}`).join(", ")].join("\n");
    }

    function pasteInfotext(tab, text) {
        const prompt = find(`#${tab}_prompt textarea`);
        const paste = find(`#${tab}_tools #paste`);
        if (!prompt || !paste) throw new Error("the page has no prompt box or no paste button ↙");
        setValue(prompt, text);
        setTimeout(() => paste.click());
    }

    /** The tab's picture: what it has made, in img2img before that what it begins with; null where there is none. */
    function shownPicture(tab) {
        const begun = tab === "img2img" ? find("#img2img_image img") : null;
        return madePicture(tab) || (begun?.naturalWidth ? begun : null);
    }

    /** The picture of the tab's gallery that is looked at, or its first; the grid of a batch is none. */
    function madePicture(tab) {
        const all = [...(find(`#${tab}_gallery`)?.querySelectorAll("img") || [])].filter((one) => one.naturalWidth);
        const large = all.find((one) => one.dataset.testid === "detailed-image");
        const [first, second, ...others] = all.filter((one) => one !== large);
        const hasGrid = others.length > 0 && !isAsLarge(first, second), shown = large || first;
        return (hasGrid && shown.src === first.src ? second : shown) || null;
    }

    function isAsLarge(one, other) {
        return one.naturalWidth === other.naturalWidth && one.naturalHeight === other.naturalHeight;
    }

    /** The middle of what the tab has made, small, as the text of a PNG; null where there is none. */
    function lastPicture(tab) {
        const picture = madePicture(tab);
        if (!picture) return null;
        const side = Math.min(picture.naturalWidth, picture.naturalHeight);
        const canvas = sciart.dom.h("canvas", {width: THUMBNAIL, height: THUMBNAIL});
        const brush = canvas.getContext("2d");
        brush.imageSmoothingQuality = "high";
        brush.drawImage(picture, (picture.naturalWidth - side) / 2, (picture.naturalHeight - side) / 2, side, side,
            0, 0, THUMBNAIL, THUMBNAIL);
        return canvas.toDataURL("image/png");
    }

    Object.assign(host, {find, setValue, stepsOf, currentSettings, infotext, pasteInfotext, shownPicture, lastPicture});
})();
