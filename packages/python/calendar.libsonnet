// A package that a Python script writes. The script reads what it is to do as JSON on stdin.
function(assize, python)
  assize.run({
    name: 'calendar',
    description: 'calendars of three years, written by a Python script',
    tool: python,
    program: 'python-3.12.0.wasm',
    args: ['/in/script'],
    inputs: { script: assize.source('calendar_pages.py') },
    stdin: { years: [1969, 2000, 2026] },
  })
