// One participant of @waku/sds, driven over standard input and output.
//
// A line in is a JSON object that says what to do; a line out is what came of it:
//   {"out": [messages to send, in hex], "events": [...]}
// or {"error": "..."}. Time is what the other side says: the library asks Date.now(), which is
// replaced here, so that minutes of back-off pass at once.

import { createInterface } from "node:readline";
import { MessageChannel, MessageChannelEvent, Message } from "@waku/sds";

let now = 0;
Date.now = () => now;

let channel;
let out = [];
let events = [];

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bytes = (text) => Uint8Array.from(Buffer.from(text, "hex"));

const send = async (message) => {
  out.push(hex(message.encode()));
  return true;
};

// What the library tells, in the words of the test.
const watch = (name, event, detail) =>
  channel.addEventListener(name, (told) => events.push({ event, ...detail(told.detail) }));

const commands = {
  open({ name, participant, options }) {
    channel = new MessageChannel(name, participant, options);
    const id = (id) => ({ id });
    const entry = (message) => ({ id: message.messageId });
    const ids = (entries) => ({
      ids: entries.map((entry) => entry.messageId),
      hints: entries.map((entry) => hex(entry.retrievalHint ?? [])),
    });
    watch(MessageChannelEvent.InMessageDelivered, "delivered", id);
    watch(MessageChannelEvent.OutMessageAcknowledged, "acknowledged", id);
    watch(MessageChannelEvent.OutMessagePossiblyAcknowledged, "possibly", ({ messageId }) =>
      id(messageId));
    watch(MessageChannelEvent.InMessageMissing, "missing", ids);
    watch(MessageChannelEvent.InMessageLost, "lost", ids);
    watch(MessageChannelEvent.InSyncReceived, "sync", entry);
    watch(MessageChannelEvent.ErrorTask, "failed", (detail) => ({ why: String(detail.error) }));
  },

  clock({ ms }) {
    now = ms;
  },

  async send({ content }) {
    channel.pushOutgoingMessage(bytes(content), async (message) => {
      await send(message);
      return { success: true, retrievalHint: bytes(content).slice(0, 4) };
    });
    await channel.processTasks();
  },

  async ephemeral({ content }) {
    await channel.pushOutgoingEphemeralMessage(bytes(content), send);
    await channel.processTasks();
  },

  async sync() {
    await channel.pushOutgoingSyncMessage(send);
  },

  async receive({ message }) {
    const decoded = Message.decode(bytes(message));
    if (decoded === undefined) {
      throw new Error("not decoded");
    }
    events.push({ event: "read", id: decoded.messageId, kind: decoded.constructor.name });
    channel.pushIncomingMessage(decoded, undefined);
    await channel.processTasks();
  },

  // What a program that uses the library has to do every now and then.
  async sweep() {
    channel.sweepIncomingBuffer();
    await channel.sweepRepairIncomingBuffer(send);
  },

  async resend() {
    for (const message of channel.sweepOutgoingBuffer().unacknowledged) {
      await send(message);
    }
  },

  log() {
    for (const message of channel.localHistory.slice(0)) {
      events.push({
        event: "logged",
        id: message.messageId,
        lamport: Number(message.lamportTimestamp),
        content: hex(message.content),
      });
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    await commands[command.do](command);
    answer = { out, events };
  } catch (error) {
    answer = { error: String(error) };
  }
  [out, events] = [[], []];
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
