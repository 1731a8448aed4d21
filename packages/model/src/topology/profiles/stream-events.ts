/**
 * The function of the serverless profile: takes the network's signed webhooks, keeps what every stream and channel is
 * doing in the table, and answers the public question of what is on, also while the media host is paused. It is
 * written for Node 22's runtime, which brings AWS's SDK, and fits CloudFormation's 4,096 characters.
 */
export const streamEventsCode = `'use strict';
const { createHmac, timingSafeEqual } = require('node:crypto');
const { DynamoDBClient, PutItemCommand, QueryCommand } = require('@aws-sdk/client-dynamodb');
const { GetSecretValueCommand, SecretsManagerClient } = require('@aws-sdk/client-secrets-manager');
const table = new DynamoDBClient({ maxAttempts: 3 });
const secrets = new SecretsManagerClient({ maxAttempts: 3 });
const TableName = process.env.TABLE;
const TOLERANCE_SECONDS = 300;
const SECRET_TTL_MS = 300000;
let known = { at: 0, value: '' };
async function secret() {
  if (Date.now() - known.at > SECRET_TTL_MS) {
    const answer = await secrets.send(new GetSecretValueCommand({ SecretId: process.env.SECRET }));
    known = { at: Date.now(), value: JSON.parse(answer.SecretString).value };
  }
  return known.value;
}
const answer = (statusCode, body, maxAge = 0) => ({
  statusCode,
  headers: { 'content-type': 'application/json', 'cache-control': maxAge ? 'public, max-age=' + maxAge : 'no-store' },
  body: JSON.stringify(body),
});
async function isSigned(header, body) {
  const [, t = '', v1 = ''] = /^t=(\\d{1,12}),v1=([0-9a-f]{64})$/.exec(header || '') || [];
  if (v1 === '' || Math.abs(Date.now() / 1000 - Number(t)) > TOLERANCE_SECONDS) return false;
  const right = createHmac('sha256', await secret()).update(t + '.' + body).digest();
  return timingSafeEqual(right, Buffer.from(v1, 'hex'));
}
async function take(event) {
  const body = event.isBase64Encoded ? Buffer.from(event.body, 'base64').toString() : event.body || '';
  if (!(await isSigned(event.headers['starling-signature'], body))) return answer(401, { error: 'not signed by the network' });
  const happened = JSON.parse(body);
  const [kind, name, state] =
    happened.type === 'publish' ? ['stream', happened.stream, 'live']
    : happened.type === 'unpublish' ? ['stream', happened.stream, 'off']
    : happened.type === 'failover' ? ['channel', happened.channel, happened.to === null ? 'off' : happened.to]
    : [];
  if (kind === undefined) return answer(204, {});
  try {
    await table.send(new PutItemCommand({
      TableName,
      Item: { kind: { S: kind }, name: { S: name }, state: { S: state }, at: { S: happened.at } },
      // Deliveries may come late and in another order.
      ConditionExpression: 'attribute_not_exists(#at) OR #at < :at',
      ExpressionAttributeNames: { '#at': 'at' },
      ExpressionAttributeValues: { ':at': { S: happened.at } },
    }));
  } catch (error) {
    if (error.name !== 'ConditionalCheckFailedException') throw error;
  }
  return answer(204, {});
}
async function list(kind) {
  const { Items = [] } = await table.send(new QueryCommand({
    TableName,
    KeyConditionExpression: 'kind = :kind',
    ExpressionAttributeValues: { ':kind': { S: kind } },
    Limit: 500,
  }));
  return Items.map((item) => ({ name: item.name.S, state: item.state.S, at: item.at.S }));
}
exports.handler = async (event) => {
  if (event.routeKey === 'POST /events') return take(event);
  if (event.routeKey === 'GET /streams') return answer(200, { streams: await list('stream'), channels: await list('channel') }, 5);
  return answer(404, { error: 'not here' });
};
`;
