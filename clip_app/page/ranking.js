// Ranks by embeddings, in the browser: the rules are those of clip_app/ranking.py.

export function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += one[i] * other[i];
  return sum;
}

// Relevant is what the text fits better than all prompts that name nothing together.
export function byText(items, query, neutral, scale) {
  return ranked(items, (item) => {
    const score = dot(item.embedding, query);
    const background = neutral.map((prompt) => scale * dot(item.embedding, prompt));
    const peak = Math.max(...background);
    const against = peak + Math.log(background.reduce((sum, value) => sum + Math.exp(value - peak), 0));
    return { score, relevant: scale * score > against };
  });
}

export function byPicture(items, query, alike) {
  return ranked(items, (item) => {
    const score = dot(item.embedding, query);
    return { score, relevant: score >= alike };
  });
}

function ranked(items, rate) {
  return items.filter((item) => item.embedding).map((item) => ({ item, ...rate(item) })).sort((a, b) => b.score - a.score);
}

// Pairs of pictures that are nearly the same, the nearest first.
export function nearDuplicates(items, threshold, most) {
  const seen = items.filter((item) => item.embedding);
  const pairs = [];
  for (let i = 0; i < seen.length; i++) {
    for (let j = i + 1; j < seen.length; j++) {
      const score = dot(seen[i].embedding, seen[j].embedding);
      if (score >= threshold) pairs.push({ one: seen[i], other: seen[j], score });
    }
  }
  return pairs.sort((a, b) => b.score - a.score).slice(0, most);
}
