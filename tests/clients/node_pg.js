// node's `pg`, with cursors and streams: HOST PORT USER DATABASE TABLE
const assert = require('assert');
const { Client, Pool } = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');

const [host, port, user, database, table] = process.argv.slice(2);
const config = { host, port: +port, user, database };
let failed = 0;

async function check(name, run, more = {}) {
  const client = new Client({ ...config, ...more });
  client.on('error', () => {});
  try {
    await client.connect();
    await run(client);
    console.log('ok', name);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}: ${error.code || ''} ${String(error.stack).slice(0, 600)}`);
  }
  await client.end().catch(() => {});
}

async function fails(client, query, code) {
  try {
    await client.query(query);
  } catch (error) {
    assert.strictEqual(error.code, code);
    return error;
  }
  throw new Error(`no error ${code}`);
}

(async () => {
  await check('values have types', async (client) => {
    const row = (await client.query(`select "__time" as t, 1.5::float8 as f, 7::int as i, 12.34::numeric(10,2) as d, null as n, array['a','b'] as a from ${table} limit 1`)).rows[0];
    assert.ok(row.t instanceof Date);
    assert.deepStrictEqual([row.f, row.i, row.d, row.n, row.a], [1.5, 7, '12.34', null, ['a', 'b']]);
  });
  await check('parameters', async (client) => {
    const count = async (where, values) => +(await client.query(`select count(*) as n from ${table} where ${where}`, values)).rows[0].n;
    assert.ok(await count('channel <> $1', ['nowhere']) > 0);
    assert.ok(await count('added >= $1 and deleted >= $2', [0, 0]) > 0);
    assert.ok(await count('"__time" >= $1', [new Date('2000-01-01T00:00:00Z')]) > 0);
    assert.ok(await count('channel <> all($1)', [['x', 'y']]) > 0);
    assert.strictEqual((await client.query(`select page from ${table} limit $1`, [5])).rows.length, 5);
  });
  await check('named statements', async (client) => {
    for (let i = 0; i < 3; i++) {
      const query = { name: 'p', text: `select page from ${table} where added >= $1 limit 3`, values: [i] };
      assert.strictEqual((await client.query(query)).rows.length, 3);
    }
  });
  await check('several statements', async (client) => assert.strictEqual((await client.query('select 1; select 2')).length, 2));
  await check('cursors', async (client) => {
    const cursor = client.query(new Cursor(`select page from ${table} where added >= $1`, [0]));
    assert.strictEqual((await cursor.read(100)).length, 100);
    assert.strictEqual((await cursor.read(50)).length, 50);
    await cursor.close();
    assert.strictEqual((await client.query('select 1::int as x')).rows[0].x, 1);
  });
  await check('streams', async (client) => {
    let rows = 0;
    for await (const _ of client.query(new QueryStream(`select page from ${table} limit 900`, [], { batchSize: 100 }))) rows += 1;
    assert.strictEqual(rows, 900);
  });
  await check('errors', async (client) => {
    await fails(client, 'select * from no_such_table', '42P01');
    assert.ok(+(await fails(client, 'selec 1', '42601')).position > 0);
    await fails(client, { text: `select nope from ${table} where added > $1`, values: [1] }, '42703');
    assert.strictEqual((await client.query('select $1::int as x', [1])).rows[0].x, 1);
  });
  await check('transactions', async (client) => {
    for (const statement of ['begin', 'savepoint a', 'rollback to a', 'release savepoint a', 'commit']) await client.query(statement);
  });
  await check('statement_timeout', async (client) => {
    await fails(client, `select count(*) from ${table} a, ${table} b, ${table} c where a.page || b.page || c.page like '%qqq%'`, '57014');
    assert.strictEqual((await client.query('select 1::int as x')).rows[0].x, 1);
  }, { statement_timeout: 500 });
  await check('settings at startup', async (client) => assert.strictEqual((await client.query('show application_name')).rows[0].application_name, 'cube'), { application_name: 'cube' });
  await check('a pool', async () => {
    const pool = new Pool({ ...config, max: 5 });
    const answers = await Promise.all([...Array(20)].map(() => pool.query(`select channel, sum(added) from ${table} group by 1`)));
    assert.strictEqual(new Set(answers.map((answer) => answer.rows.length)).size, 1);
    await pool.end();
  });
  process.exit(failed ? 1 : 0);
})();
