(() => {
  const every = 3000;
  const ages = () => {
    for (const time of document.querySelectorAll("#live time")) {
      const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time.dateTime)) / 1000));
      const age = seconds < 120 ? seconds + " s" : seconds < 7200 ? Math.round(seconds / 60) + " min" : Math.round(seconds / 3600) + " h";
      time.title = time.title || time.textContent;
      time.textContent = age + " ago";
    }
  };
  const typing = () => document.activeElement && document.activeElement.id === "q";
  const update = async () => {
    const gone = document.getElementById("gone");
    try {
      const answer = await fetch(location.href, {cache: "no-store", signal: AbortSignal.timeout(10000)});
      if (!answer.ok && answer.status !== 503) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const [live, next] = [document.getElementById("live"), fresh.getElementById("live")];
      gone.hidden = true;
      document.title = fresh.title;
      if (next && !typing() && !getSelection().toString()) {
        const focused = document.activeElement && document.activeElement.getAttribute("href");
        live.replaceWith(next);
        if (focused) [...next.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
      }
    } catch {
      gone.hidden = false;
    }
    ages();
    setTimeout(update, every);
  };
  ages();
  setTimeout(update, every);
})();
