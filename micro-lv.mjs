import { ClassicLevel } from 'classic-level'
import { mkdtempSync, rmSync, readdirSync, statSync } from 'node:fs'
const N = 200000, PART=64, GROUP=50
const modes = process.argv[2].split(',')
function mk(n){ const b=Buffer.allocUnsafe(n); for(let i=0;i<n;i++) b[i]=(Math.random()*256)|0; return b }
const recs = Array.from({length:6400},()=>{const b=Buffer.alloc(190,97); for(let i=0;i<40;i++)b[i]=(Math.random()*256)|0; return b})
async function run(mode, opts={}) {
  const path = mkdtempSync('/tmp/lv/d-')
  const db = new ClassicLevel(path,{keyEncoding:'buffer',valueEncoding:'buffer',cacheSize:64<<20,writeBufferSize:32<<20,...opts})
  await db.open()
  const c0=process.cpuUsage(), t0=performance.now()
  let seq=0, id=0, js=0
  const uid=Buffer.from('user-12')
  for (let n=0;n<N;n+=PART*GROUP) {
    const j0=performance.now()
    const b=db.batch()
    const put = mode.includes('_') ? (k,v)=>b._put(k,v) : (k,v)=>b.put(k,v)
    if (mode.includes('_')) b.put(Buffer.from('zz'),Buffer.from('x'))
    for (let g=0;g<GROUP;g++) {
      const no=(n/PART/GROUP+g)%100
      const seq0=seq; seq+=PART
      const key=Buffer.allocUnsafe(9); key[0]=109; key.writeUInt32BE(no,1); key.writeUInt32BE(seq,5)
      if (mode.startsWith('packed')) {
        const blk=Buffer.allocUnsafe(190*PART); for(let i=0;i<PART;i++) blk.set(recs[(n+i*7)%6400],i*190)
        put(key,blk); put(Buffer.concat([Buffer.from('I'),key]),key)
      } else for(let i=0;i<PART;i++){ const k=Buffer.allocUnsafe(9); k[0]=109;k.writeUInt32BE(no,1);k.writeUInt32BE(seq0+i,5); put(k,recs[(n+i*7)%6400])
        const ik=Buffer.allocUnsafe(9); ik[0]=105; ik.writeDoubleBE(id++,1); put(ik,k) }
      if (!mode.includes('nonum')) for(let i=0;i<PART;i++){ 
        if (mode.includes('hash')) { const k=Buffer.allocUnsafe(13); k[0]=100;k.writeUInt32BE(no,1);k.writeUInt32BE(Math.random()*2**32,5);k.writeUInt32BE(Math.random()*2**32,9); put(k,key)}
        else { const k=Buffer.allocUnsafe(33); k[0]=100;k.writeUInt32BE(no,1); for(let j=5;j<33;j+=4) k.writeUInt32BE((Math.random()*2**32)>>>0,j>29?29:j); put(k,key)}
      }
      put(Buffer.concat([Buffer.from('s'),key]),key); put(Buffer.concat([Buffer.from('C'),key]),recs[1].subarray(0,43))
    }
    const w=b.write({sync:true})
    js+=performance.now()-j0
    await w
  }
  const c=process.cpuUsage(c0), t=performance.now()-t0
  await db.close()
  const disk=readdirSync(path).reduce((s,f)=>s+statSync(path+'/'+f).size,0)
  rmSync(path,{recursive:true})
  return {cpu:(c.user+c.system)/N, js:js*1000/N, wall:t*1000/N, disk:disk/N}
}
const variants = modes.map(m=>{const [a,o]=m.split('@'); return [m,a,o?JSON.parse(o.replaceAll(';',',')):{}]})
const res=new Map(variants.map(v=>[v[0],[]]))
for(let r=0;r<+(process.argv[3]??3);r++) for(const [m,a,o] of variants) res.get(m).push(await run(a,o))
const med=(a)=>a.sort((x,y)=>x-y)[a.length>>1]
for(const [m,rs] of res) console.log(m.padEnd(40),'cpu',med(rs.map(r=>r.cpu)).toFixed(2),'js',med(rs.map(r=>r.js)).toFixed(2),'wall',med(rs.map(r=>r.wall)).toFixed(2),'disk',med(rs.map(r=>r.disk)).toFixed(0))
