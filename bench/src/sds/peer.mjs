// @waku/sds, driven line by line: an order in, `ns <wall> <cpu>` out. Times are of the work alone,
// not of making its input, and of all the operations of one order together.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const root = pathToFileURL(`${process.argv[2]}/node_modules/@waku/sds/dist/`).href;
const { MessageChannel, ContentMessage, Message } = await import(`${root}index.js`);
const { DefaultBloomFilter } = await import(`${root}bloom_filter/bloom.js`);

const OPTIONS = { capacity: 10000, errorRate: 0.001 };
const CONTENT = new Uint8Array(100).fill(7);
const id = (number) => number.toString(16).padStart(64, "0");

// Others' filter: as full as it gets in use, and without any id of the receiver's own.
const others = new DefaultBloomFilter(OPTIONS);
for (let number = 0; number < 8000; number++) others.insert(`other ${number}`);
const filter = others.toBytes();

let lamport = BigInt(Date.now());
const open = () => new MessageChannel("benchmark", "me");
let channel = open();
let made = 0;
let sent = 0;

// Messages of eight senders, each citing the 200 before it, as this implementation does.
const CITED = 200;

function messages(count) {
  const all = [];
  for (let index = 0; index < count; index++, made++) {
    const causal = [];
    for (let back = Math.min(CITED, made); back > 0; back--) {
      causal.push({ messageId: id(made - back), senderId: `sender ${(made - back) % 8}` });
    }
    lamport += 1n;
    all.push(
      new ContentMessage(id(made), "benchmark", `sender ${made % 8}`, causal, lamport, filter, CONTENT).encode(),
    );
  }
  return all;
}

async function receive(all) {
  for (const bytes of all) {
    channel.pushIncomingMessage(Message.decode(bytes), undefined);
    await channel.processTasks();
  }
}

let wire = 0;
async function send(count) {
  for (let index = 0; index < count; index++) {
    sent += 1;
    const content = CONTENT.slice();
    new DataView(content.buffer).setUint32(0, sent);
    channel.pushOutgoingMessage(content, async (message) => {
      wire = message.encode().length;
      return { success: true };
    });
    await channel.processTasks();
  }
}

const orders = {
  open: () => {
    channel = open();
    made = 0;
    return () => {};
  },
  fill: (count) => {
    const all = messages(count);
    return () => receive(all);
  },
  receive: (count) => {
    const all = messages(count);
    return () => receive(all);
  },
  send: (count) => () => send(count),
  reverse: (count) => {
    const all = messages(count).reverse();
    return async () => {
      await receive(all);
      let rounds = 0;
      while (channel.sweepIncomingBuffer().length > 0 && rounds++ < count);
    };
  },
  insert: (count) => {
    const bloom = new DefaultBloomFilter(OPTIONS);
    const ids = Array.from({ length: count }, (_, number) => id(number));
    return () => ids.forEach((one) => bloom.insert(one));
  },
  bytes: () => {
    channel = new MessageChannel("benchmark", "me");
    return async () => {
      await send(201);
      process.stdout.write(`bytes ${wire}\n`);
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [order, count] = line.split(" ");
  const work = orders[order](Number(count));
  const cpu = process.cpuUsage();
  const wall = process.hrtime.bigint();
  await work();
  const spent = process.hrtime.bigint() - wall;
  const used = process.cpuUsage(cpu);
  process.stdout.write(`ns ${spent} ${(used.user + used.system) * 1000}\n`);
}
