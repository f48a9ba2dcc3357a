// Fill in each frame's prediction when it comes into view, as its pictures load then too.
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

async function describe(figure) {
  const target = figure.querySelector(".prediction");
  try {
    const response = await fetch(figure.dataset.prediction);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const { predicted, probabilities, regions } = await response.json();
    target.textContent = `${predicted} ${percent.format(probabilities[predicted])}`;
    if (regions === 0) target.textContent += ", no region stands out";
  } catch (error) {
    target.textContent = `no prediction: ${error.message}`;
  }
}

const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    describe(target);
  }
});
document.querySelectorAll("figure[data-prediction]").forEach((figure) => observer.observe(figure));
