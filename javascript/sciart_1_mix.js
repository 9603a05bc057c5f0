/* The mixture as a whole, without the page: how much of each LoRA there is, and other amounts of it.
   A LoRA's amount is its weight, or its schedule's largest; another amount scales the schedule, which keeps its form. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};

    const DIGITS = 4;

    /** Forms of schedules that were scaled to zero, by their entries of the recipe: they come back as they were. */
    const forms = new WeakMap();

    /** The amounts of LoRAs' entries; null where one has no weight that can be read. */
    function amountsOf(loras) {
        const shapes = loras.map((lora) => sciart.schedules.shapeOf(lora));
        return shapes.every(Boolean) ? shapes.map(sciart.schedules.largest) : null;
    }

    /** The mixture as it is before a gesture, so that its steps do not add up roundings. */
    function held(loras) {
        return loras.map((lora) => {
            const shape = sciart.schedules.shapeOf(lora), amount = sciart.schedules.largest(shape);
            const form = amount ? shape.points.map(([progress, weight]) => [progress, weight / amount])
                : forms.get(lora) || shape.points.map(([progress]) => [progress, 1]);
            forms.set(lora, form);
            return {lora, form, constant: shape.constant, amount};
        });
    }

    function setAmount({lora, form, constant}, amount) {
        if (constant) lora.weight = sciart.schedules.limited(amount);
        else sciart.schedules.setPoints(lora, form.map(([progress, weight]) =>
            [progress, sciart.schedules.limited(weight * amount)]));
    }

    /** Amounts of these shares, in hundredths but the largest, so that their sum is kept. */
    function amountsFor(shares, sum) {
        const amounts = shares.map((share) => sciart.schedules.rounded(share * sum, 2));
        const most = amounts.indexOf(Math.max(...amounts));
        const others = amounts.reduce((total, amount, i) => i === most ? total : total + amount, 0);
        amounts[most] = sciart.schedules.rounded(sum - others, DIGITS);
        return amounts;
    }

    function sumOf(amounts) {
        return sciart.schedules.rounded(amounts.reduce((total, amount) => total + Math.abs(amount), 0), DIGITS);
    }

    sciart.mix = {amountsOf, held, setAmount, amountsFor, sumOf};
})();
