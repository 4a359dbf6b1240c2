// What the JavaScript clients' scripts share: running features, and saying how they went.

'use strict';

const assert = require('node:assert/strict');

const SOON = 5000;

/** The promise's value, or an error if it takes longer than soon. */
function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${SOON} ms`)), SOON);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until a client is blocked at the server, which `info` describes. */
async function waitUntilBlocked(info) {
  const deadline = Date.now() + SOON;
  while (/blocked_clients:0\r/.test(await info())) {
    assert.ok(Date.now() < deadline, `nobody blocked within ${SOON} ms`);
  }
}

/** Messages in the order of their arrival, for whoever asks next. */
class Inbox {
  #arrived = [];
  #asked = [];

  put(message) {
    const ask = this.#asked.shift();
    ask ? ask(message) : this.#arrived.push(message);
  }

  next() {
    const arrived = this.#arrived.shift();
    const message = arrived ?? new Promise((resolve) => this.#asked.push(resolve));
    return soon(Promise.resolve(message), 'message');
  }
}

/** Runs the features in order, prints a line for each, and ends the process. */
async function run(features) {
  let failed = false;
  for (const [name, feature] of Object.entries(features)) {
    try {
      await soon(feature(), 'end');
      console.log(`ok ${name}`);
    } catch (error) {
      failed = true;
      console.log(`FAIL ${name}: ${String(error.stack ?? error).replaceAll('\n', ' | ')}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

module.exports = { Inbox, run, waitUntilBlocked };
