// Tables are sorted by a click on the head of a column, or by Enter on it: numbers by size, names by the alphabet.
document.addEventListener('DOMContentLoaded', () => {
  for (const table of document.querySelectorAll('article table.docutils')) {
    const body = table.tBodies[0];
    if (!table.tHead || body.rows.length < 5) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const sort = () => {
        const down = head.getAttribute('aria-sort') === 'ascending';
        const value = (row) => row.cells[column].textContent.trim();
        const compare = (a, b) => {
          const [x, y] = [value(a), value(b)];
          if (!x || !y) return !x - !y;  // empty ones stay below
          const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, 'en', {numeric: true}) : x - y;
          return down ? -order : order;
        };
        body.append(...[...body.rows].sort(compare));
        heads.forEach((other) => other.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      };
      head.tabIndex = 0;
      head.classList.add('sortable');
      head.addEventListener('click', sort);
      head.addEventListener('keydown', (event) => event.key === 'Enter' && sort());
    });
  }
});
