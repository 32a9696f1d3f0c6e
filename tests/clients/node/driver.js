'use strict'
// Drives kafkajs for the suite: one job as JSON in the first argument, its result as JSON on the last line of the output.
const fs = require('fs')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const lz4 = require('lz4-napi')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrame(buffer),
})

const zstd = require('@mongodb-js/zstd')
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => zstd.compress(encoder.buffer),
  decompress: async (buffer) => zstd.decompress(buffer),
})

const CODECS = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 }
const BATCH = 500

const pack = (field) => {
  const head = Buffer.alloc(4)
  head.writeInt32BE(field === null || field === undefined ? -1 : field.length)
  return field ? Buffer.concat([head, field]) : head
}

function readRecords (path) {
  const data = fs.readFileSync(path)
  let at = 0
  const i32 = () => { at += 4; return data.readInt32BE(at - 4) }
  const i64 = () => { at += 8; return data.readBigInt64BE(at - 8) }
  const bytes = () => {
    const length = i32()
    if (length < 0) return null
    at += length
    return data.subarray(at - length, at)
  }
  const out = []
  while (at < data.length) {
    const partition = i32()
    i64()
    const one = { partition, timestamp: i64().toString(), key: bytes(), value: bytes() }
    const headers = {}
    for (let left = i32(); left > 0; left--) {
      const name = bytes().toString()
      const value = bytes()
      if (name in headers) headers[name] = [].concat(headers[name], value)
      else headers[name] = value
    }
    if (Object.keys(headers).length) one.headers = headers
    out.push(one)
  }
  return out
}

function encode (partition, message) {
  const head = Buffer.alloc(20)
  head.writeInt32BE(partition)
  head.writeBigInt64BE(BigInt(message.offset), 4)
  head.writeBigInt64BE(BigInt(message.timestamp), 12)
  const headers = []
  for (const [name, value] of Object.entries(message.headers || {})) {
    for (const one of Array.isArray(value) ? value : [value]) headers.push([name, one])
  }
  const count = Buffer.alloc(4)
  count.writeInt32BE(headers.length)
  return Buffer.concat([head, pack(message.key), pack(message.value), count,
    ...headers.flatMap(([name, value]) => [pack(Buffer.from(name)), pack(value)])])
}

async function produce (kafka, job) {
  const records = readRecords(job.file)
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const offsets = []
  for (let from = 0; from < records.length; from += BATCH) {
    const part = records.slice(from, from + BATCH)
    const answers = await producer.send({ topic: job.topic, acks: -1, compression: CODECS[job.codec], messages: part })
    const next = {}
    for (const answer of answers) next[answer.partition] = Number(answer.baseOffset)
    for (const one of part) offsets.push(next[one.partition]++)
  }
  await producer.disconnect()
  fs.writeFileSync(job.out, JSON.stringify(offsets))
  return { produced: offsets.length }
}

async function consume (kafka, job) {
  const consumer = kafka.consumer({ groupId: job.group, maxWaitTimeInMs: 200, sessionTimeout: 10000 })
  await consumer.connect()
  await consumer.subscribe({ topic: job.topic, fromBeginning: true })
  const out = fs.openSync(job.out, 'w')
  let read = 0
  const commits = {}
  await new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, job.seconds * 1000)
    const finish = (error) => { clearTimeout(timer); error ? reject(error) : resolve() }
    consumer.on(consumer.events.CRASH, (event) => finish(event.payload.error))
    consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch, heartbeat }) => {
        fs.writeSync(out, Buffer.concat(batch.messages.map((message) => encode(batch.partition, message))))
        read += batch.messages.length
        if (batch.messages.length) commits[batch.partition] = (BigInt(batch.lastOffset()) + 1n).toString()
        await heartbeat()
        if (read >= job.count) finish()
      },
    }).catch(finish)
  })
  await consumer.commitOffsets(Object.entries(commits).map(([partition, offset]) => ({ topic: job.topic, partition: Number(partition), offset })))
  await consumer.disconnect()
  fs.closeSync(out)
  return { read }
}

// What the broker keeps of an admin's work, as kafkajs sees it.
async function admin (kafka, job) {
  const one = kafka.admin()
  await one.connect()
  await one.createTopics({ waitForLeaders: true, topics: [{ topic: job.topic, numPartitions: 2, configEntries: [{ name: 'retention.ms', value: '12345678' }] }] })
  const { topics } = await one.fetchTopicMetadata({ topics: [job.topic] })
  const configs = await one.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name: job.topic, configNames: ['retention.ms'] }] })
  await one.createPartitions({ topicPartitions: [{ topic: job.topic, count: 3 }] })
  const listed = (await one.listTopics()).includes(job.topic)
  const offsets = await one.fetchTopicOffsets(job.topic)
  const cluster = await one.describeCluster()
  await one.setOffsets({ groupId: job.group, topic: job.topic, partitions: [{ partition: 0, offset: '0' }] })
  const committed = await one.fetchOffsets({ groupId: job.group, topics: [job.topic] })
  const groups = (await one.listGroups()).groups.map((group) => group.groupId)
  const described = (await one.describeGroups([job.group])).groups[0].state
  await one.deleteGroups([job.group])
  await one.deleteTopics({ topics: [job.topic] })
  await one.disconnect()
  return { partitions: topics[0].partitions.length, retention: configs.resources[0].configEntries[0].configValue, listed, offsets: offsets.length, brokers: cluster.brokers.length, committed: committed[0].partitions.find((p) => p.partition === 0).offset, grouped: groups.includes(job.group), described }
}

const job = JSON.parse(process.argv[2])
const kafka = new Kafka({ clientId: 'suite-kafkajs', brokers: [job.bootstrap], logLevel: logLevel.WARN, retry: { initialRetryTime: 50, retries: 10 } })
const JOBS = { produce, consume, admin }
JOBS[job.do](kafka, job).then(
  (result) => { console.log(JSON.stringify(result)); process.exit(0) },
  (error) => { console.error(error); process.exit(1) })
