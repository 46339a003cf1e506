// Checks that a Node client made from our .proto files works: `node with_grpc_js.js ADDRESS PROTOS`.
// Prints a line of JSON: what it got.
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, protos] = process.argv.slice(2);
const definition = loader.loadSync(path.join(protos, 'inference', 'service.proto'), {
  includeDirs: [protos], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
});
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
const client = new GRPCInferenceService(address, grpc.credentials.createInsecure());
const deadline = () => ({ deadline: Date.now() + 60000 });

const a = Buffer.from(new Float32Array([1, 2, 3, 4, 5, 6]).buffer);
const b = Buffer.from(new BigInt64Array([0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n]).buffer);
const inputs = [{ name: 'a', datatype: 'FP32', shape: [2, 3] }, { name: 'b', datatype: 'INT64', shape: [2, 2, 2] }];
const request = { model_name: 'mixed', inputs, raw_input_contents: [a, b] };

const call = (method, message) => new Promise((resolve, reject) =>
  client[method](message, new grpc.Metadata(), deadline(), (error, answer) => (error ? reject(error) : resolve(answer))));
const floats = (answer) => {
  const bytes = answer.raw_output_contents[answer.outputs.findIndex((output) => output.name === 'sum')];
  return Array.from(new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)));
};

const stream = (requests) => new Promise((resolve, reject) => {
  const answers = [];
  const open = client.ModelStreamInfer(new grpc.Metadata(), deadline());
  open.on('data', (answer) => answers.push(answer));
  open.on('error', reject);
  open.on('end', () => resolve(answers));
  requests.forEach((one) => open.write(one));
  open.end();
});

(async () => {
  const typed = inputs.map((input, index) => ({
    ...input,
    contents: index ? { int64_contents: [0, 1, 2, 3, 4, 5, 6, 7] } : { fp32_contents: [1, 2, 3, 4, 5, 6] },
  }));
  const streamed = await stream([
    { ...request, id: 'one' }, { ...request, id: 'two', model_name: 'nothing' }, { ...request, id: 'three' },
  ]);
  console.log(JSON.stringify({
    live: (await call('ServerLive', {})).live,
    metadata: (await call('ModelMetadata', { name: 'mixed' })).inputs.map((input) => input.shape),
    config: (await call('ModelConfig', { name: 'mixed' })).config.max_batch_size,
    raw: floats(await call('ModelInfer', request)),
    typed: floats(await call('ModelInfer', { ...request, inputs: typed, raw_input_contents: [] })),
    error: await call('ModelInfer', { ...request, raw_input_contents: [a] }).catch((error) => error.code),
    statistics: (await call('ModelStatistics', { name: 'mixed' })).model_stats[0].execution_count > 0,
    stream: streamed.map((answer) => [answer.infer_response.id, answer.error_message !== '']),
  }));
  client.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
